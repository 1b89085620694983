# Finds the CUDA compiler, or says what is missing. There is no CUDA source yet, so nothing is compiled with it.
find_program(TERN_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
if(NOT TERN_NVCC)
  message(FATAL_ERROR "TERN_CUDA=ON, but there is no nvcc in PATH, CUDA_HOME, CUDA_PATH or /usr/local/cuda. "
    "Install the CUDA toolkit, 12.4 or newer, or leave TERN_CUDA off.")
endif()
execute_process(COMMAND ${TERN_NVCC} --version OUTPUT_VARIABLE TERN_NVCC_VERSION RESULT_VARIABLE TERN_NVCC_RESULT)
if(NOT TERN_NVCC_RESULT EQUAL 0 OR NOT TERN_NVCC_VERSION MATCHES "release ([0-9]+\\.[0-9]+)")
  message(FATAL_ERROR "TERN_CUDA=ON, but ${TERN_NVCC} --version does not run or names no release.")
endif()
if(CMAKE_MATCH_1 VERSION_LESS 12.4)
  message(FATAL_ERROR "TERN_CUDA=ON, but ${TERN_NVCC} is release ${CMAKE_MATCH_1}; Tern needs 12.4 or newer.")
endif()
message(STATUS "CUDA ${CMAKE_MATCH_1}: ${TERN_NVCC}")
