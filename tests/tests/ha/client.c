/* An NFSv3 client in user space that writes as a hard mount does: it waits for ever.
 *
 *   client URL FILE append   appends records of 64 bytes; prints "NUMBER MICROSECONDS" when the server has acknowledged one
 *                            as durable; ends when its standard input ends
 *   client URL FILE read     prints the file
 *   client URL FILE probe    connects to the server's port again and again until its standard input ends; prints how often
 *                            it has succeeded and how often it was refused
 *
 * O_SYNC asks the server to make each record durable before it answers (FILE_SYNC). A write and a COMMIT are no proof with
 * this library: it does not compare the server's verifiers, and so takes the COMMIT of a server that has never seen the
 * write for an acknowledgement of it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <nfsc/libnfs.h>

enum { RECORD_BYTES = 64, READ_BYTES = 65536, NFS_PORT = 2049, PROBE_MS = 20 };

static struct nfs_context *nfs;

static void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, nfs_get_error(nfs));
	exit(1);
}

static long long now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static int told_to_end(void)
{
	struct pollfd input = { .fd = 0, .events = POLLIN };
	return poll(&input, 1, 0) != 0;
}

static void append(const char *path)
{
	struct nfsfh *file;
	char record[RECORD_BYTES + 1];
	long long number, began;

	if (nfs_open(nfs, path, O_RDWR | O_CREAT | O_SYNC, &file))
		fail("open");
	for (number = 0; !told_to_end(); number++) {
		snprintf(record, sizeof record, "%063lld\n", number);
		began = now_us();
		if (nfs_pwrite(nfs, file, number * RECORD_BYTES, RECORD_BYTES, record) != RECORD_BYTES)
			fail("write");
		printf("%lld %lld\n", number, now_us() - began);
	}
	nfs_close(nfs, file);
}

static void print(const char *path)
{
	static char bytes[READ_BYTES];
	struct nfsfh *file;
	unsigned long long at = 0;
	int count;

	if (nfs_open(nfs, path, O_RDONLY, &file))
		fail("open");
	while ((count = nfs_pread(nfs, file, at, sizeof bytes, bytes)) > 0) {
		fwrite(bytes, 1, count, stdout);
		at += count;
	}
	if (count < 0)
		fail("read");
	nfs_close(nfs, file);
}

/* 0, or why there is no connection. */
static int try_to_connect(const struct sockaddr_in *server)
{
	struct linger reset = { .l_onoff = 1 };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), error = 0;
	socklen_t size = sizeof error;
	struct pollfd ready = { .fd = fd, .events = POLLOUT };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
	if (connect(fd, (const struct sockaddr *)server, sizeof *server) && errno != EINPROGRESS)
		error = errno;
	else if (poll(&ready, 1, PROBE_MS) == 0)
		error = ETIMEDOUT;
	else
		getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
	close(fd);
	return error;
}

static void probe(const char *address)
{
	struct sockaddr_in server = { .sin_family = AF_INET, .sin_port = htons(NFS_PORT) };
	long connected = 0, refused = 0;

	inet_pton(AF_INET, address, &server.sin_addr);
	while (!told_to_end()) {
		int error = try_to_connect(&server);
		connected += error == 0;
		refused += error == ECONNREFUSED;
		poll(NULL, 0, 1);
	}
	printf("%ld %ld\n", connected, refused);
}

int main(int argc, char **argv)
{
	struct nfs_url *url;

	if (argc != 4) {
		fprintf(stderr, "usage: client URL FILE append|read|probe\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	nfs = nfs_init_context();
	url = nfs ? nfs_parse_url_dir(nfs, argv[1]) : NULL;
	if (!url)
		fail("url");
	if (strcmp(argv[3], "probe") == 0) {
		probe(url->server);
		return 0;
	}
	nfs_set_autoreconnect(nfs, -1);
	if (nfs_mount(nfs, url->server, url->path))
		fail("mount");
	if (strcmp(argv[3], "append") == 0)
		append(argv[2]);
	else
		print(argv[2]);
	return 0;
}
