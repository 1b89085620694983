# What `cmake --install` puts where. All of it may be moved as a whole afterwards: the program, tern.pc and
# tern-config.cmake find the library by the way from their own place.
include(CMakePackageConfigHelpers)

file(RELATIVE_PATH TERN_BIN_TO_LIB ${CMAKE_INSTALL_FULL_BINDIR} ${CMAKE_INSTALL_FULL_LIBDIR})
file(RELATIVE_PATH TERN_PC_TO_PREFIX ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
file(RELATIVE_PATH TERN_PREFIX_TO_LIB ${CMAKE_INSTALL_PREFIX} ${CMAKE_INSTALL_FULL_LIBDIR})
file(RELATIVE_PATH TERN_PREFIX_TO_INCLUDE ${CMAKE_INSTALL_PREFIX} ${CMAKE_INSTALL_FULL_INCLUDEDIR})
string(REGEX REPLACE "/$" "" TERN_PC_TO_PREFIX ${TERN_PC_TO_PREFIX})
set(TERN_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/tern)

install(TARGETS tern EXPORT tern-targets)
install(DIRECTORY include/tern DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
if(TARGET tern_program)
  set_target_properties(tern_program PROPERTIES INSTALL_RPATH "$ORIGIN/${TERN_BIN_TO_LIB}")
  install(TARGETS tern_program)
endif()

# A shared library carries what it needs, so the package has no dependencies to look for.
install(EXPORT tern-targets NAMESPACE tern:: DESTINATION ${TERN_CMAKE_DIR})
file(WRITE ${PROJECT_BINARY_DIR}/tern-config.cmake "include(\"\${CMAKE_CURRENT_LIST_DIR}/tern-targets.cmake\")\n")
write_basic_package_version_file(${PROJECT_BINARY_DIR}/tern-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/tern-config.cmake ${PROJECT_BINARY_DIR}/tern-config-version.cmake
  DESTINATION ${TERN_CMAKE_DIR})

configure_file(cmake/tern.pc.in tern.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/tern.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
