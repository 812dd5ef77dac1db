# EBBTIDE_TORCH_DIR: the folder of the installed torch package, found without importing it.
# EBBTIDE_TORCH_VERSION: its version, e.g. 2.11.0. Both are empty when there is none.
# Set EBBTIDE_TORCH_DIR by hand for a LibTorch that is not a Python package.
find_package(Python3 COMPONENTS Interpreter QUIET)
if(NOT DEFINED EBBTIDE_TORCH_DIR AND Python3_Interpreter_FOUND)
  execute_process(
    COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/find_torch.py
    OUTPUT_VARIABLE EBBTIDE_TORCH_FOUND OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  set(EBBTIDE_TORCH_DIR "${EBBTIDE_TORCH_FOUND}" CACHE PATH "Folder of the torch package")
endif()
set(EBBTIDE_TORCH_VERSION "")
foreach(header torch/headeronly/version.h torch/version.h)
  if(EBBTIDE_TORCH_DIR AND EXISTS ${EBBTIDE_TORCH_DIR}/include/${header})
    file(STRINGS ${EBBTIDE_TORCH_DIR}/include/${header} lines
         REGEX "#define TORCH_VERSION_(MAJOR|MINOR|PATCH) [0-9]+")
    string(REGEX MATCHALL "[0-9]+" EBBTIDE_TORCH_VERSION "${lines}")
    string(REPLACE ";" "." EBBTIDE_TORCH_VERSION "${EBBTIDE_TORCH_VERSION}")
    break()
  endif()
endforeach()
