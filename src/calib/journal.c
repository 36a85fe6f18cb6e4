#include "dsa/journal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "dsa/arena.h"
#include "dsa/file.h"
#include "dsa/journal_record.h"

/* Where a record is; its statistics stay in the file until they are asked for. */
struct entry {
	uint64_t hash; /* of the key */
	uint64_t offset;
	uint32_t bytes;
};

struct dsa_journal {
	struct dsa_arena arena; /* path and header */
	struct dsa_journal_header header;
	const char *path;
	int fd;
	bool writable, broken; /* broken: a failed record could not be taken back */
	uint64_t size;         /* end of the last good record */
	int64_t executed;
	struct entry *entries; /* (room) in the order of the file */
	uint32_t count, room;
	uint32_t *table; /* (slots) open addressing, entry number + 1 */
	uint32_t slots;  /* power of two, at least twice count */
};

static enum dsa_status io_error(const struct dsa_journal *journal, const char *verb, struct dsa_error *err)
{
	int cause = errno;
	return dsa_fail(err, cause == ENOENT && !journal->writable ? DSA_E_MISSING : DSA_E_IO, "%s: cannot %s: %s",
	                journal->path, verb, strerror(cause));
}

static enum dsa_status read_at(const struct dsa_journal *journal, void *data, size_t bytes, uint64_t offset,
                               struct dsa_error *err)
{
	uint8_t *next = data;
	while (bytes) {
		ssize_t got = pread(journal->fd, next, bytes, (off_t)offset);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return io_error(journal, "read", err);
		if (got == 0)
			return dsa_fail(err, DSA_E_IO, "%s: became shorter while it was read; run again",
			                journal->path);
		next += got;
		offset += (uint64_t)got;
		bytes -= (size_t)got;
	}
	return DSA_OK;
}

/* *intact: a whole record with a right check begins at offset and ends by end; it is then in record. */
static enum dsa_status read_record(const struct dsa_journal *journal, uint64_t offset, uint64_t end,
                                   struct dsa_record_buffer *record, bool *intact, struct dsa_error *err)
{
	uint8_t head[8];
	*intact = false;
	if (end - offset < DSA_RECORD_FRAME)
		return DSA_OK;
	enum dsa_status status = read_at(journal, head, sizeof head, offset, err);
	size_t bytes = status ? 0 : dsa_record_bytes(head);
	if (status || !bytes || bytes > end - offset)
		return status;
	status = dsa_record_buffer_reserve(record, bytes, err);
	if (!status)
		status = read_at(journal, record->data, bytes, offset, err);
	if (status)
		return status;
	record->used = bytes;
	*intact = dsa_record_intact(record->data, bytes);
	return DSA_OK;
}

static void put_in_table(struct dsa_journal *journal, uint32_t number)
{
	uint32_t slot = (uint32_t)journal->entries[number].hash & (journal->slots - 1);
	while (journal->table[slot])
		slot = (slot + 1) & (journal->slots - 1);
	journal->table[slot] = number + 1;
}

/* Room for one more entry. */
static enum dsa_status grow(struct dsa_journal *journal, struct dsa_error *err)
{
	static const char what[] = "the journal's index";
	if (journal->count < journal->room)
		return DSA_OK;
	if (journal->room > UINT32_MAX / 8)
		return dsa_fail(err, DSA_E_MEMORY, "%s: more than %u records", journal->path, journal->room);
	uint32_t room = journal->room ? 2 * journal->room : 256;
	struct entry *entries = dsa_alloc(room, sizeof *entries, what, err);
	uint32_t *table = entries ? dsa_alloc(2 * (size_t)room, sizeof *table, what, err) : NULL;
	if (!table) {
		free(entries);
		return DSA_E_MEMORY;
	}
	if (journal->count)
		memcpy(entries, journal->entries, journal->count * sizeof *entries);
	free(journal->entries);
	free(journal->table);
	journal->entries = entries;
	journal->room = room;
	journal->table = table;
	journal->slots = 2 * room;
	/* In the order of the file, so that of equal keys the first is met first. */
	for (uint32_t i = 0; i < journal->count; i++)
		put_in_table(journal, i);
	return DSA_OK;
}

/* Enters the record at journal->size and moves the end behind it. */
static enum dsa_status enter(struct dsa_journal *journal, const struct dsa_record_buffer *record, struct dsa_error *err)
{
	struct dsa_record_key key;
	int64_t executed;
	enum dsa_status status = dsa_record_read_key(record->data, record->used, &key, err);
	if (!status && __builtin_add_overflow(journal->executed, key.executed, &executed))
		status = dsa_fail(err, DSA_E_INPUT, "its work is out of range");
	if (status) {
		dsa_error_prefix(err, "%s: record at byte %llu", journal->path, (unsigned long long)journal->size);
		return status;
	}
	status = grow(journal, err);
	if (status)
		return status;
	journal->entries[journal->count] = (struct entry){
	    .hash = dsa_record_key_hash(&key),
	    .offset = journal->size,
	    .bytes = (uint32_t)record->used,
	};
	put_in_table(journal, journal->count++);
	journal->executed = executed;
	journal->size += record->used;
	return DSA_OK;
}

/* Is there a good record anywhere in (from, end)? Then what is at from is damage and no half-written tail. A search
 * that a hostile file makes too long counts as yes. */
static enum dsa_status anything_follows(const struct dsa_journal *journal, uint64_t from, uint64_t end,
                                        struct dsa_record_buffer *record, bool *follows, struct dsa_error *err)
{
	enum { WINDOW = 1 << 16, OVER = 7 };
	uint8_t window[WINDOW];
	uint64_t budget = 64 * (end - from) + (1 << 20);
	enum dsa_status status = DSA_OK;
	*follows = false;
	for (uint64_t at = from + 1; end - at >= DSA_RECORD_FRAME; at += WINDOW - OVER) {
		size_t bytes = end - at < WINDOW ? (size_t)(end - at) : WINDOW;
		status = read_at(journal, window, bytes, at, err);
		for (size_t i = 0; !status && i + OVER < bytes; i++) {
			size_t length = dsa_record_bytes(window + i);
			if (!length || length > end - at - i)
				continue;
			if (length > budget) {
				*follows = true;
				return DSA_OK;
			}
			budget -= length;
			status = read_record(journal, at + i, end, record, follows, err);
			if (*follows)
				return status;
		}
		if (status || bytes < WINDOW)
			break;
	}
	return status;
}

static enum dsa_status cut_tail(struct dsa_journal *journal, uint64_t end, const struct dsa_log *log,
                                struct dsa_error *err)
{
	unsigned long long bytes = end - journal->size;
	if (!journal->writable) {
		dsa_log_line(log, DSA_LOG_INFO, "%s: the last %llu bytes are a half-written record and are ignored",
		             journal->path, bytes);
		return DSA_OK;
	}
	dsa_log_line(log, DSA_LOG_WARN,
	             "%s: the last %llu bytes are a half-written record and are cut off; it will be measured again",
	             journal->path, bytes);
	if (ftruncate(journal->fd, (off_t)journal->size))
		return io_error(journal, "cut off the half-written record", err);
	return fdatasync(journal->fd) ? io_error(journal, "sync", err) : DSA_OK;
}

/* Indexes all records. */
static enum dsa_status scan(struct dsa_journal *journal, uint64_t end, const struct dsa_log *log, struct dsa_error *err)
{
	struct dsa_record_buffer record = {0};
	enum dsa_status status = DSA_OK;
	bool intact = true, follows = false;
	while (!status && journal->size < end) {
		status = read_record(journal, journal->size, end, &record, &intact, err);
		if (status || !intact)
			break;
		status = enter(journal, &record, err);
	}
	if (!status && !intact)
		status = anything_follows(journal, journal->size, end, &record, &follows, err);
	if (!status && follows)
		status = dsa_fail(err, DSA_E_INPUT,
		                  "%s: the record at byte %llu is damaged (its check is wrong) and others follow it; "
		                  "restore the file or use another --out",
		                  journal->path, (unsigned long long)journal->size);
	else if (!status && !intact)
		status = cut_tail(journal, end, log, err);
	dsa_record_buffer_release(&record);
	return status;
}

static enum dsa_status compare_fields(const struct dsa_journal *journal, const struct dsa_journal_field *fields,
                                      int count, struct dsa_error *err)
{
	static const char advice[] = "use another --out or the old setting";
	const struct dsa_journal_header *header = &journal->header;
	for (int i = 0; i < count; i++) {
		const char *value = dsa_journal_field(journal, fields[i].name);
		if (!value)
			return dsa_fail(err, DSA_E_USAGE, "%s: \"%s\" was not recorded in this run, is %s now; %s",
			                journal->path, fields[i].name, fields[i].value, advice);
		if (strcmp(value, fields[i].value) != 0)
			return dsa_fail(err, DSA_E_USAGE, "%s: \"%s\" was %s in this run, is %s now; %s", journal->path,
			                fields[i].name, value, fields[i].value, advice);
	}
	for (int i = 0; i < header->count; i++) {
		const struct dsa_journal_field *old = &header->fields[i];
		bool known = false;
		for (int j = 0; j < count; j++)
			known = known || !strcmp(old->name, fields[j].name);
		if (!known)
			return dsa_fail(err, DSA_E_USAGE, "%s: \"%s\" was %s in this run, is unknown now; %s",
			                journal->path, old->name, old->value, advice);
	}
	return DSA_OK;
}

static enum dsa_status read_header(struct dsa_journal *journal, uint64_t end, struct dsa_error *err)
{
	size_t bytes = end < DSA_HEADER_MOST ? (size_t)end : DSA_HEADER_MOST;
	uint8_t *data = dsa_alloc(bytes, 1, "the journal's header", err);
	if (!data)
		return DSA_E_MEMORY;
	enum dsa_status status = read_at(journal, data, bytes, 0, err);
	if (!status)
		status = dsa_journal_header_read(&journal->header, data, bytes, journal->path, &journal->arena, err);
	journal->size = journal->header.bytes;
	free(data);
	return status;
}

/* Opens and locks the file that path names, not one that was just renamed away from there. */
static enum dsa_status open_locked(struct dsa_journal *journal, struct stat *file, struct dsa_error *err)
{
	int mode = journal->writable ? O_RDWR | O_APPEND | O_CREAT : O_RDONLY;
	for (;;) {
		struct stat named;
		journal->fd = open(journal->path, mode | O_CLOEXEC | O_NONBLOCK, 0666);
		if (journal->fd < 0)
			return io_error(journal, "open", err);
		if (journal->writable && flock(journal->fd, LOCK_EX | LOCK_NB)) {
			if (errno == EWOULDBLOCK)
				return dsa_fail(err, DSA_E_USAGE,
				                "%s: another dsacal is at work in this run directory; wait for it or "
				                "use another --out",
				                journal->path);
			if (errno != ENOLCK && errno != EOPNOTSUPP && errno != ENOSYS)
				return io_error(journal, "lock", err);
			/* A file system without locks: nothing guards against a second run there. */
		}
		if (fstat(journal->fd, file))
			return io_error(journal, "read", err);
		if (!S_ISREG(file->st_mode))
			return dsa_fail(err, DSA_E_INPUT, "%s: not a regular file", journal->path);
		if (stat(journal->path, &named) == 0 && named.st_ino == file->st_ino && named.st_dev == file->st_dev)
			return DSA_OK;
		close(journal->fd);
		journal->fd = -1;
	}
}

/* A new journal is written aside and renamed over the empty file, so that no kill leaves half a header. */
static enum dsa_status create(struct dsa_journal *journal, const struct dsa_journal_field *fields, int count,
                              struct dsa_error *err)
{
	struct dsa_record_buffer header = {0};
	enum dsa_status status = dsa_journal_header_write(&header, (int64_t)time(NULL), fields, count, err);
	if (!status)
		status = dsa_file_replace(journal->path, header.data, header.used, err);
	dsa_record_buffer_release(&header);
	close(journal->fd); /* the empty file, and with it the lock */
	journal->fd = -1;
	return status;
}

enum dsa_status dsa_journal_open(struct dsa_journal **out, const char *path, const struct dsa_journal_field *fields,
                                 int count, const struct dsa_log *log, struct dsa_error *err)
{
	struct stat file;
	*out = NULL;
	struct dsa_journal *journal = dsa_alloc(1, sizeof *journal, "the journal", err);
	if (!journal)
		return DSA_E_MEMORY;
	*journal = (struct dsa_journal){.fd = -1, .writable = fields != NULL};
	dsa_arena_init(&journal->arena);
	enum dsa_status status = DSA_E_MEMORY;
	journal->path = dsa_arena_text(&journal->arena, path, strlen(path), err);
	if (!journal->path)
		goto cleanup;
	status = open_locked(journal, &file, err);
	if (!status && !file.st_size && fields) {
		status = create(journal, fields, count, err);
		if (!status)
			status = open_locked(journal, &file, err);
	}
	if (!status)
		status = read_header(journal, (uint64_t)file.st_size, err);
	if (!status && fields)
		status = compare_fields(journal, fields, count, err);
	if (!status)
		status = scan(journal, (uint64_t)file.st_size, log, err);
cleanup:
	if (status)
		dsa_journal_close(journal);
	else
		*out = journal;
	return status;
}

void dsa_journal_close(struct dsa_journal *journal)
{
	if (!journal)
		return;
	if (journal->fd >= 0)
		close(journal->fd);
	free(journal->entries);
	free(journal->table);
	dsa_arena_release(&journal->arena);
	free(journal);
}

int64_t dsa_journal_created(const struct dsa_journal *journal)
{
	return journal->header.created;
}

const char *dsa_journal_field(const struct dsa_journal *journal, const char *name)
{
	for (int i = 0; i < journal->header.count; i++)
		if (!strcmp(journal->header.fields[i].name, name))
			return journal->header.fields[i].value;
	return NULL;
}

int64_t dsa_journal_records(const struct dsa_journal *journal)
{
	return journal->count;
}

int64_t dsa_journal_executed(const struct dsa_journal *journal)
{
	return journal->executed;
}

const char *dsa_journal_path(const struct dsa_journal *journal)
{
	return journal->path;
}

enum dsa_status dsa_journal_find(struct dsa_journal *journal, const struct dsa_record_key *key,
                                 struct dsa_record_buffer *record, struct dsa_error *err)
{
	uint64_t hash = dsa_record_key_hash(key);
	uint32_t slot = (uint32_t)hash & (journal->slots - 1);
	for (; journal->slots && journal->table[slot]; slot = (slot + 1) & (journal->slots - 1)) {
		const struct entry *entry = &journal->entries[journal->table[slot] - 1];
		struct dsa_record_key found;
		bool intact;
		if (entry->hash != hash)
			continue;
		enum dsa_status status =
		    read_record(journal, entry->offset, entry->offset + entry->bytes, record, &intact, err);
		if (status)
			return status;
		if (!intact)
			return dsa_fail(err, DSA_E_INPUT, "%s: the record at byte %llu changed after it was opened",
			                journal->path, (unsigned long long)entry->offset);
		status = dsa_record_read_key(record->data, record->used, &found, err);
		if (status || dsa_record_key_equal(&found, key))
			return status;
	}
	return DSA_E_MISSING;
}

bool dsa_journal_knows(const struct dsa_journal *journal, const struct dsa_record_key *key)
{
	const uint64_t hash = dsa_record_key_hash(key);
	uint32_t slot = (uint32_t)hash & (journal->slots - 1);
	for (; journal->slots && journal->table[slot]; slot = (slot + 1) & (journal->slots - 1))
		if (journal->entries[journal->table[slot] - 1].hash == hash)
			return true;
	return false;
}

enum dsa_status dsa_journal_append(struct dsa_journal *journal, const struct dsa_record_buffer *record,
                                   struct dsa_error *err)
{
	assert(journal->writable && dsa_record_intact(record->data, record->used));
	if (journal->broken)
		return dsa_fail(err, DSA_E_IO, "%s: an earlier write failed and could not be taken back; run again",
		                journal->path);
	enum dsa_status status = dsa_file_write_all(journal->fd, record->data, record->used, journal->path, err);
	if (!status)
		status = enter(journal, record, err);
	if (status && ftruncate(journal->fd, (off_t)journal->size))
		journal->broken = true;
	return status == DSA_E_MISSING ? DSA_E_IO : status;
}

enum dsa_status dsa_journal_sync(struct dsa_journal *journal, struct dsa_error *err)
{
	if (!fdatasync(journal->fd))
		return DSA_OK;
	journal->broken = true; /* which of the records reached the disk is not known */
	return io_error(journal, "sync", err);
}
