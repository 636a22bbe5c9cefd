# ChunkStore over stores in memory: included by CMakeLists.txt beside it.
set(dir ${CMAKE_CURRENT_LIST_DIR})
quarry_test(chunk_store_test
  LABEL unit
  SOURCES
    ${dir}/chunk_store_faults_test.cc
    ${dir}/chunk_store_ingest_test.cc
    ${dir}/chunk_store_map_test.cc
    ${dir}/chunk_store_read_test.cc
    ${dir}/chunk_store_upkeep_test.cc
  LIBS quarry_chunkstore_memory quarry_chunkstore_local
  TIMEOUT 600)
