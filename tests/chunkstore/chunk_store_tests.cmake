# ChunkStore over stores in memory: included by CMakeLists.txt beside it.
set(QUARRY_CHUNK_STORE_TESTS ${CMAKE_CURRENT_LIST_DIR})
quarry_test(chunk_store_test
  LABEL unit
  SOURCES
    ${QUARRY_CHUNK_STORE_TESTS}/chunk_store_ingest_test.cc
  LIBS quarry_chunkstore_memory
  TIMEOUT 600)
