# Building against the installed torch without find_package(Torch), which would want a CUDA compiler.
include(EbbtideTorchLocation)

set(EBBTIDE_TORCH_HAS_CUDA FALSE)
if(EBBTIDE_TORCH_DIR AND EXISTS ${EBBTIDE_TORCH_DIR}/lib/libc10_cuda.so)
  # The wheel's CUDA headers, or a toolkit's.
  file(GLOB EBBTIDE_WHEEL_CUDA ${EBBTIDE_TORCH_DIR}/../nvidia/cu*/include
       ${EBBTIDE_TORCH_DIR}/../nvidia/cuda_runtime/include)
  find_path(EBBTIDE_CUDA_INCLUDE cuda_runtime_api.h
            HINTS ${EBBTIDE_WHEEL_CUDA} PATHS /usr/local/cuda/include)
  # CUDA 13's headers include crt/, which the wheels leave out; triton and toolkits have it.
  find_path(EBBTIDE_CUDA_CRT_INCLUDE crt/host_defines.h
            HINTS ${EBBTIDE_CUDA_INCLUDE} ${EBBTIDE_TORCH_DIR}/../triton/backends/nvidia/include
            PATHS /usr/local/cuda/include)
  file(GLOB EBBTIDE_CUDART ${EBBTIDE_TORCH_DIR}/../nvidia/cu*/lib/libcudart.so*
       ${EBBTIDE_TORCH_DIR}/../nvidia/cuda_runtime/lib/libcudart.so*)
  if(EBBTIDE_CUDA_INCLUDE AND EBBTIDE_CUDA_CRT_INCLUDE)
    set(EBBTIDE_TORCH_HAS_CUDA TRUE)
  else()
    message(STATUS "Ebbtide: torch has CUDA, but its headers were not found; no CUDA adaptor")
  endif()
endif()

# ebbtide_add_torch_library(name SOURCES ... LIBRARIES c10 ... [COMPONENT install component]): a shared
# library for the torch that was found.
function(ebbtide_add_torch_library name)
  cmake_parse_arguments(LIBRARY "" "COMPONENT" "SOURCES;LIBRARIES" ${ARGN})
  add_library(${name} SHARED ${LIBRARY_SOURCES})
  target_link_libraries(${name} PUBLIC ebbtide PRIVATE ebbtide_options ${CMAKE_DL_LIBS})
  target_include_directories(${name} SYSTEM PRIVATE
    ${EBBTIDE_TORCH_DIR}/include ${EBBTIDE_TORCH_DIR}/include/torch/csrc/api/include
    $<$<BOOL:${EBBTIDE_CUDA_INCLUDE}>:${EBBTIDE_CUDA_INCLUDE}>
    $<$<BOOL:${EBBTIDE_CUDA_CRT_INCLUDE}>:${EBBTIDE_CUDA_CRT_INCLUDE}>)
  foreach(library ${LIBRARY_LIBRARIES})
    target_link_libraries(${name} PRIVATE ${EBBTIDE_TORCH_DIR}/lib/lib${library}.so)
  endforeach()
  # torch is loaded before it is, from wherever torch is installed then: no path into it.
  set_target_properties(${name} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${EBBTIDE_NATIVE_OUTPUT}
                        BUILD_WITH_INSTALL_RPATH TRUE INSTALL_RPATH "$ORIGIN")
  target_link_options(${name} PRIVATE -Wl,-z,nodelete -Wl,--allow-shlib-undefined)
  string(REPLACE ebbtide_ "" short ${name})
  set_target_properties(${name} PROPERTIES EXPORT_NAME ${short})
  if(NOT LIBRARY_COMPONENT)
    set(LIBRARY_COMPONENT Unspecified)
  endif()
  install(TARGETS ${name} EXPORT ebbtideTargets
          LIBRARY DESTINATION ${EBBTIDE_NATIVE_INSTALL} COMPONENT ${LIBRARY_COMPONENT})
endfunction()

# ebbtide_add_torch_adaptor(name SOURCES ... LIBRARIES c10 ...)
function(ebbtide_add_torch_adaptor name)
  cmake_parse_arguments(ADAPTOR "" "" "SOURCES;LIBRARIES" ${ARGN})
  ebbtide_add_torch_library(${name} LIBRARIES ${ADAPTOR_LIBRARIES}
    SOURCES ${ADAPTOR_SOURCES} torch_version.cpp torch_backward.cpp torch_startup.cpp torch_stacks.cpp python_frames.cpp cpp_frames.cpp)
  target_compile_definitions(${name} PRIVATE
    EBBTIDE_TORCH_VERSION_TEXT="${EBBTIDE_TORCH_VERSION}")
  # A program that links an adaptor calls none of its functions, and needs it nevertheless.
  target_link_options(${name} INTERFACE LINKER:--no-as-needed)
endfunction()
