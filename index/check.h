/* `loadstoned check DIR`: looks at every checksum and invariant of a data directory that no daemon
 * serves, and changes nothing. One line a finding on standard output, and one a collection.
 *
 * Exit status: 0 sound, 1 damaged, 2 wrong usage or cannot be read. argv[0] is the word check. */
#ifndef LOADSTONE_INDEX_CHECK_H
#define LOADSTONE_INDEX_CHECK_H

int check_main(int argc, char **argv);

#endif
