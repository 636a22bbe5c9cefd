# The shapes that every room's CMakeLists.txt is written in.

# quarry_library(name SOURCES a.cc b.cc [PUBLIC lib...] [PRIVATE lib...])
# PUBLIC are rooms whose headers ours include; a third party's library is PRIVATE: its headers stay in our .cc files.
function(quarry_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC ${ARG_PUBLIC} PRIVATE ${ARG_PRIVATE})
endfunction()

# quarry_timeout(variable): sanitized binaries are several times slower.
function(quarry_timeout variable)
  if(QUARRY_SANITIZE)
    math(EXPR slower "4 * ${${variable}}")
    set(${variable} ${slower} PARENT_SCOPE)
  endif()
endfunction()

# quarry_test(name LABEL unit|model|e2e|fuzz|tidy SOURCES a_test.cc [LIBS lib...] [TIMEOUT seconds])
# One GoogleTest binary, one ctest entry.
function(quarry_test name)
  cmake_parse_arguments(ARG "" "LABEL;TIMEOUT" "SOURCES;LIBS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  quarry_timeout(ARG_TIMEOUT)
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_LIBS} quarry_test_support GTest::gmock GTest::gtest_main)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS ${ARG_LABEL} TIMEOUT ${ARG_TIMEOUT})
endfunction()
