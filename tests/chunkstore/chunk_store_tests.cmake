# ChunkStore over stores in memory: included by CMakeLists.txt beside it.
set(dir ${CMAKE_CURRENT_LIST_DIR})
quarry_test(chunk_store_test
  LABEL unit
  SOURCES
    ${dir}/chunk_store_blocks_test.cc
    ${dir}/chunk_store_faults_test.cc
    ${dir}/chunk_store_frames_test.cc
    ${dir}/chunk_store_ingest_test.cc
    ${dir}/chunk_store_kinds_test.cc
    ${dir}/chunk_store_loans_test.cc
    ${dir}/chunk_store_map_editor_test.cc
    ${dir}/chunk_store_map_test.cc
    ${dir}/chunk_store_over_test.cc
    ${dir}/chunk_store_processes_test.cc
    ${dir}/chunk_store_read_test.cc
    ${dir}/chunk_store_records_test.cc
    ${dir}/chunk_store_sharing_test.cc
    ${dir}/chunk_store_stress_test.cc
    ${dir}/chunk_store_upkeep_test.cc
  LIBS quarry_chunkstore_memory quarry_chunkstore_local
  TIMEOUT 1200)
target_compile_definitions(chunk_store_test PRIVATE QUARRY_SOURCE_DIR="${dir}/../..")

add_executable(chunk_store_crash_child ${dir}/chunk_store_crash_child.cc)
target_link_libraries(chunk_store_crash_child
  PRIVATE quarry_chunkstore_memory quarry_chunkstore_local quarry_test_support GTest::gtest)
quarry_test(chunk_store_crash_test
  LABEL model
  SOURCES ${dir}/chunk_store_crash_test.cc
  LIBS quarry_chunkstore_memory quarry_chunkstore_local
  TIMEOUT 1200)
target_compile_definitions(chunk_store_crash_test
  PRIVATE CRASH_CHILD="$<TARGET_FILE:chunk_store_crash_child>")
add_dependencies(chunk_store_crash_test chunk_store_crash_child)

quarry_fuzz(map_page
  SOURCE ${dir}/chunk_store_map_fuzz.cc
  CORPUS ${dir}/map_page_corpus
  LIBS quarry_chunkstore)
