/* cmocka with the headers that it wants before it. */
#ifndef LOADSTONE_TESTS_API_CMOCKA_ALL_H
#define LOADSTONE_TESTS_API_CMOCKA_ALL_H

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#endif
