# What `cmake --install` gives to find_package(ebbtide). Its component keeps it out of a wheel.
include(CMakePackageConfigHelpers)
set(EBBTIDE_PACKAGE_INSTALL ${CMAKE_INSTALL_LIBDIR}/cmake/ebbtide)

configure_package_config_file(
  ${PROJECT_SOURCE_DIR}/cmake/ebbtideConfig.cmake.in ${PROJECT_BINARY_DIR}/ebbtideConfig.cmake
  INSTALL_DESTINATION ${EBBTIDE_PACKAGE_INSTALL} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(
  ${PROJECT_BINARY_DIR}/ebbtideConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/ebbtideConfig.cmake
              ${PROJECT_BINARY_DIR}/ebbtideConfigVersion.cmake
        DESTINATION ${EBBTIDE_PACKAGE_INSTALL} COMPONENT ebbtide_development)
install(EXPORT ebbtideTargets NAMESPACE ebbtide:: DESTINATION ${EBBTIDE_PACKAGE_INSTALL}
        COMPONENT ebbtide_development)
