# quarry_cluster_test(name COMMAND command...  [OPTIONS --osds 1 ...] [TIMEOUT seconds])
# Runs the command beside a Ceph cluster of its own (tests/cluster/with_cluster.py; OPTIONS are its options). One at a
# time: a cluster takes a small machine for itself.
function(quarry_cluster_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "OPTIONS;COMMAND" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 600)
  endif()
  quarry_timeout(ARG_TIMEOUT)
  add_test(NAME ${name} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR} COMMAND
    /usr/bin/python3 ${CMAKE_SOURCE_DIR}/tests/cluster/with_cluster.py ${ARG_OPTIONS} ${ARG_COMMAND})
  quarry_cluster_properties(${name} ${ARG_TIMEOUT})
endfunction()

function(quarry_cluster_properties name timeout)
  set_tests_properties(${name} PROPERTIES LABELS cluster TIMEOUT ${timeout} RESOURCE_LOCK ceph
    ENVIRONMENT "TEST_QUARRY_BINARY=$<TARGET_FILE:quarry>;PYTHONDONTWRITEBYTECODE=1")
endfunction()
