/* The fan-out's innermost loop: the same bytes to many sockets, one send(2) each.

   `unsent` has room for `count` pairs. What did not go out at once, or not wholly, is told there as (index, bytes sent);
   the caller hands the rest to that socket's transport, which waits, or finds out what is wrong. Returns their number. */
#include <sys/socket.h>

int carillon_send(const int *sockets, int count, const void *data, long size, int *unsent) {
    int left = 0;
    for (int i = 0; i < count; i++) {
        long sent = send(sockets[i], data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent != size) {
            unsent[2 * left] = i;
            unsent[2 * left + 1] = sent < 0 ? 0 : sent;
            left++;
        }
    }
    return left;
}
