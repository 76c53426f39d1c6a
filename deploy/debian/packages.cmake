# Debian packages, from what is installed (`make package`): terrace (daemon and terracectl), terrace-tools, libterrace (the client
# library for C, C++ and Python).
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME terrace)
set(CPACK_PACKAGE_VENDOR Terrace)
set(CPACK_PACKAGE_CONTACT "The Terrace project <maintainers@terrace.invalid>")
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_SET_DESTDIR ON)
set(CPACK_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL daemon tools client)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION net)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)

set(CPACK_DEBIAN_DAEMON_PACKAGE_NAME terrace)
set(CPACK_COMPONENT_DAEMON_DESCRIPTION
    "The daemon of a node, which keeps blocks of KV cache in DRAM, on local drives and on shared file systems, and terracectl to
operate it.")
set(CPACK_DEBIAN_DAEMON_PACKAGE_DEPENDS "systemd | systemd-standalone-sysusers")
set(CPACK_DEBIAN_DAEMON_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_DAEMON_PACKAGE_CONTROL_EXTRA
    ${CMAKE_CURRENT_LIST_DIR}/postinst ${CMAKE_CURRENT_LIST_DIR}/prerm ${CMAKE_CURRENT_LIST_DIR}/postrm
    ${CMAKE_CURRENT_LIST_DIR}/conffiles)

set(CPACK_DEBIAN_TOOLS_PACKAGE_NAME terrace-tools)
set(CPACK_COMPONENT_TOOLS_DESCRIPTION
    "terrace-bench measures a daemon against the limits of its machine; terrace-sim replays traces of requests through its placement.")

set(CPACK_DEBIAN_CLIENT_PACKAGE_NAME libterrace)
set(CPACK_DEBIAN_CLIENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_CLIENT_PACKAGE_SUGGESTS "terrace, python3")
set(CPACK_DEBIAN_CLIENT_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_COMPONENT_CLIENT_DESCRIPTION
    "The client library for C, C++ and Python, with plug-ins for vLLM, SGLang and LMCache.")

include(CPack)
