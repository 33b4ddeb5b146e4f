"""Gives programs that the tests start the home directory of the test."""

import os
import pwd

real_getpwuid = pwd.getpwuid


def getpwuid(uid: int, /) -> pwd.struct_passwd:
    entry = real_getpwuid(uid)
    return pwd.struct_passwd((*entry[:5], os.environ["REDOCK_TEST_HOME"], entry[6]))


if "REDOCK_TEST_HOME" in os.environ:
    pwd.getpwuid = getpwuid
