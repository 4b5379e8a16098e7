/* An NFSv3 client in user space that writes as a hard mount does: it waits for ever.
 *
 *   client URL FILE append   appends records of 64 bytes; prints "NUMBER MICROSECONDS" when the server has acknowledged one
 *                            as durable; ends when its standard input ends
 *   client URL FILE read     prints the file
 *
 * O_SYNC asks the server to make each record durable before it answers (FILE_SYNC). A write and a COMMIT are no proof with
 * this library: it does not compare the server's verifiers, and so takes the COMMIT of a server that has never seen the
 * write for an acknowledgement of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <nfsc/libnfs.h>

enum { RECORD_BYTES = 64, READ_BYTES = 65536 };

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

int main(int argc, char **argv)
{
	struct nfs_url *url;

	if (argc != 4) {
		fprintf(stderr, "usage: client URL FILE append|read\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	nfs = nfs_init_context();
	url = nfs ? nfs_parse_url_dir(nfs, argv[1]) : NULL;
	if (!url)
		fail("url");
	nfs_set_autoreconnect(nfs, -1);
	if (nfs_mount(nfs, url->server, url->path))
		fail("mount");
	if (strcmp(argv[3], "append") == 0)
		append(argv[2]);
	else
		print(argv[2]);
	return 0;
}
