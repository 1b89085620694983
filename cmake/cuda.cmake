# libtern_cuda.so: the kernels for NVIDIA GPUs, opened by libtern.so at run time. With TERN_CUDA=AUTO a machine without a
# CUDA toolkit builds everything else; with ON it is told what is missing.
function(tern_cuda_missing why)
  if(TERN_CUDA STREQUAL "AUTO")
    message(STATUS "No kernels for GPUs: ${why}")
  else()
    message(FATAL_ERROR "TERN_CUDA=ON, but ${why}. Install the CUDA toolkit, 12.5 or newer, or leave TERN_CUDA off.")
  endif()
endfunction()

find_program(TERN_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
if(NOT TERN_NVCC)
  tern_cuda_missing("there is no nvcc in PATH, CUDA_HOME, CUDA_PATH or /usr/local/cuda")
  return()
endif()
execute_process(COMMAND ${TERN_NVCC} --version OUTPUT_VARIABLE TERN_NVCC_VERSION RESULT_VARIABLE TERN_NVCC_RESULT)
if(NOT TERN_NVCC_RESULT EQUAL 0 OR NOT TERN_NVCC_VERSION MATCHES "release ([0-9]+\\.[0-9]+)")
  tern_cuda_missing("${TERN_NVCC} --version does not run or names no release")
  return()
endif()
if(CMAKE_MATCH_1 VERSION_LESS 12.5)
  tern_cuda_missing("${TERN_NVCC} is release ${CMAKE_MATCH_1}")
  return()
endif()
message(STATUS "CUDA ${CMAKE_MATCH_1}: ${TERN_NVCC}")

set(CMAKE_CUDA_COMPILER ${TERN_NVCC})
set(CMAKE_CUDA_ARCHITECTURES ${TERN_CUDA_ARCHITECTURES})
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)

# Not every device has every instruction: int8 products of tensor cores take 8.0, Hopper's own assemble for it alone.
file(GLOB TERN_CUDA_SOURCES CONFIGURE_DEPENDS src/cuda/*.cu)
if(TERN_NETWORKS)
  file(GLOB TERN_GPU_SOURCES CONFIGURE_DEPENDS src/gpu/*.cu)
  list(APPEND TERN_CUDA_SOURCES ${TERN_GPU_SOURCES})
endif()
set(TERN_CUDA_TENSOR_SOURCES src/cuda/decode.cu src/cuda/mma.cu src/cuda/int8_peak.cu)
set(TERN_CUDA_HOPPER_SOURCES src/cuda/decode_ring.cu src/cuda/few.cu src/cuda/wgmma.cu src/cuda/wgmma_floats.cu
    src/cuda/wgmma_half.cu src/cuda/wgmma_ring.cu src/cuda/wgmma_peak.cu)
if(TERN_NETWORKS)
  list(APPEND TERN_CUDA_HOPPER_SOURCES src/gpu/gpu_attention_wgmma.cu
       src/gpu/gpu_attention_wgmma_back.cu src/gpu/gpu_conv_int8.cu src/gpu/gpu_conv_wgmma.cu)
endif()
list(TRANSFORM TERN_CUDA_TENSOR_SOURCES PREPEND ${PROJECT_SOURCE_DIR}/ OUTPUT_VARIABLE others)
list(REMOVE_ITEM TERN_CUDA_SOURCES ${others})
list(TRANSFORM TERN_CUDA_HOPPER_SOURCES PREPEND ${PROJECT_SOURCE_DIR}/ OUTPUT_VARIABLE others)
list(REMOVE_ITEM TERN_CUDA_SOURCES ${others})
set(tensor_architectures ${TERN_CUDA_ARCHITECTURES})
list(FILTER tensor_architectures EXCLUDE REGEX "^75")
if(NOT tensor_architectures) # for 7.5 alone these are never chosen, but must be there
  set(tensor_architectures 80-real)
endif()

add_library(tern_cuda_tensor OBJECT ${TERN_CUDA_TENSOR_SOURCES})
add_library(tern_cuda_hopper OBJECT ${TERN_CUDA_HOPPER_SOURCES})
set_target_properties(tern_cuda_tensor PROPERTIES CUDA_ARCHITECTURES "${tensor_architectures}")
set_target_properties(tern_cuda_hopper PROPERTIES CUDA_ARCHITECTURES 90a-real)
add_library(tern_cuda MODULE ${TERN_CUDA_SOURCES} $<TARGET_OBJECTS:tern_cuda_tensor>
  $<TARGET_OBJECTS:tern_cuda_hopper> src/base/error.c src/cuda/launch_shapes.c src/cuda/few_plan.c
  src/cuda/tiles.c src/cuda/device_matrix.c src/quant/packing.c src/quant/t2.c src/quant/t5.c src/quant/exponents.c
  src/quant/shape_checks.c)
set_target_properties(tern_cuda PROPERTIES PREFIX lib LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
foreach(target tern_cuda tern_cuda_tensor tern_cuda_hopper)
  target_include_directories(${target} PRIVATE src include)
  target_compile_definitions(${target} PRIVATE $<$<BOOL:${TERN_NETWORKS}>:TERN_NETWORKS>)
  # Contraction off for the same reason as in C.
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:--fmad=false -Xcompiler=-Wall
    $<$<BOOL:${TERN_WERROR}>:-Werror=all-warnings>>)
  target_link_libraries(${target} PRIVATE CUDA::toolkit ${CMAKE_DL_LIBS})
endforeach()
target_link_options(tern_cuda PRIVATE "LINKER:--version-script=${PROJECT_SOURCE_DIR}/cmake/tern_cuda.map")
set_target_properties(tern_cuda PROPERTIES LINK_DEPENDS ${PROJECT_SOURCE_DIR}/cmake/tern_cuda.map)
install(TARGETS tern_cuda LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})

# Beside cuBLAS, where there is one.
if(TARGET CUDA::cublasLt AND PROJECT_IS_TOP_LEVEL)
  add_executable(tern_gpu_bench bench/gpu_bench.cu)
  target_link_libraries(tern_gpu_bench PRIVATE tern CUDA::cublasLt)
endif()
