#include "terminal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "dsa/backend.h"
#include "dsa/clock.h"

static volatile sig_atomic_t stop_flag;

static void on_signal(int number)
{
	if (stop_flag)
		_exit(128 + number);
	stop_flag = 1;
}

/* BLIS aborts when it finds no memory: what can be made of it is an orderly end. The journal is whole at any moment. */
static void on_abort(int number)
{
	static const char text[] =
	    "dsacal: no memory for the buffers of a matrix product; lower --threads or --host-memory, or free some\n";
	if (dsa_backend_in_product()) {
		ssize_t written = write(STDERR_FILENO, text, sizeof text - 1);
		(void)written;
		_exit(dsa_status_exit(DSA_E_MEMORY));
	}
	signal(number, SIG_DFL); /* abort() raises it again */
}

void dsa_terminal_catch_signals(void)
{
	/* A call that waits goes on waiting: what can stop looks at the flag, and a second signal ends all. */
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	sigemptyset(&action.sa_mask);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	struct sigaction aborted = {.sa_handler = on_abort};
	sigemptyset(&aborted.sa_mask);
	sigaction(SIGABRT, &aborted, NULL);
	/* A closed pipe and a full disk are errors of the write, with a message. */
	struct sigaction ignore = {.sa_handler = SIG_IGN};
	sigemptyset(&ignore.sa_mask);
	sigaction(SIGPIPE, &ignore, NULL);
	sigaction(SIGXFSZ, &ignore, NULL);
}

const volatile sig_atomic_t *dsa_terminal_stop_flag(void)
{
	return &stop_flag;
}

double dsa_terminal_seconds(const struct dsa_terminal *terminal)
{
	return dsa_clock_seconds() - terminal->started;
}

void dsa_terminal_clear(struct dsa_terminal *terminal)
{
	if (terminal->drawn)
		fputs("\r\033[K", stderr);
	terminal->drawn = false;
}

/* Paths and names reach log lines; control characters must not reach the terminal. */
static void put_flat(FILE *out, const char *text)
{
	for (; *text; text++)
		putc((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text, out);
}

static void line(void *context, enum dsa_log_level level, const char *text)
{
	struct dsa_terminal *terminal = context;
	static const char *const names[] = {"debug", "info", "warning"};
	if (terminal->file) {
		time_t when = time(NULL);
		struct tm utc;
		char date[32] = "";
		if (gmtime_r(&when, &utc))
			strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &utc);
		fprintf(terminal->file, "%s %s ", date, names[level]);
		put_flat(terminal->file, text);
		putc('\n', terminal->file);
		fflush(terminal->file);
	}
	bool shown = level == DSA_LOG_WARN || (terminal->verbose && !terminal->quiet) ||
	             (level == DSA_LOG_INFO && !terminal->quiet);
	if (level == DSA_LOG_DEBUG && !terminal->verbose)
		shown = false;
	if (!shown)
		return;
	dsa_terminal_clear(terminal);
	if (level == DSA_LOG_WARN)
		fputs(terminal->colour ? "\033[33mwarning:\033[0m " : "warning: ", stderr);
	put_flat(stderr, text);
	putc('\n', stderr);
}

static void show_time(char *out, size_t room, double seconds)
{
	int s = seconds < 0 ? 0 : seconds > 1e8 ? 100000000 : (int)(seconds + 0.5);
	if (s >= 3600)
		snprintf(out, room, "%d h %02d min", s / 3600, s / 60 % 60);
	else
		snprintf(out, room, "%d:%02d", s / 60, s % 60);
}

/* what: of the line, as "step 3, 12 candidates". part: another one than last time starts the clock of what is left. */
static void show_progress(struct dsa_terminal *terminal, int part, const char *what, int done, int batches)
{
	if (terminal->silent_progress || terminal->quiet)
		return;
	double t = dsa_clock_seconds();
	if (part != terminal->step || done < terminal->step_batches_done) {
		terminal->step = part;
		terminal->step_started = t;
		terminal->step_batches_done = done;
	}
	char spent[32], left[32] = "";
	show_time(spent, sizeof spent, t - terminal->started);
	int measured = done - terminal->step_batches_done;
	if (measured > 0) {
		double per_batch = (t - terminal->step_started) / measured;
		show_time(left, sizeof left, per_batch * (batches - done));
	}
	if (terminal->bar) {
		enum { WIDTH = 24 };
		char bar[WIDTH + 1];
		int full = batches ? WIDTH * done / batches : WIDTH;
		for (int i = 0; i < WIDTH; i++)
			bar[i] = i < full ? '#' : '.';
		bar[WIDTH] = 0;
		fprintf(stderr, "\r\033[K%s [%s] %d/%d batches, %s%s%s", what, bar, done, batches, spent,
		        *left ? ", step ends in " : "", left);
		terminal->drawn = true;
	} else if (done == batches || t - terminal->last_line >= 10) {
		terminal->last_line = t;
		fprintf(stderr, "[%s] %s, %d/%d batches\n", spent, what, done, batches);
	}
}

static void progress(void *context, int step, int candidates, int done, int batches)
{
	char what[64];
	snprintf(what, sizeof what, "step %d: %d candidates", step, candidates);
	show_progress(context, step, what, done, batches);
}

static void refine_progress(void *context, int shared, int exchanges, int done, int batches)
{
	char what[64];
	snprintf(what, sizeof what, "refining %d shared: %d exchanges", shared, exchanges);
	/* Steps count upwards from 0. */
	show_progress(context, -2 - shared, what, done, batches);
}

void dsa_terminal_init(struct dsa_terminal *terminal, const struct dsa_cli_options *options)
{
	const char *no_colour = getenv("NO_COLOR");
	bool tty = isatty(STDERR_FILENO);
	*terminal = (struct dsa_terminal){.bar = tty && !options->no_progress,
	                                  .colour = tty && !(no_colour && *no_colour),
	                                  .quiet = options->quiet,
	                                  .verbose = options->verbose,
	                                  .silent_progress = options->no_progress,
	                                  .step = -1,
	                                  .started = dsa_clock_seconds()};
	terminal->last_line = terminal->started;
	terminal->log = (struct dsa_log){.line = line, .context = terminal};
	terminal->progress =
	    (struct dsa_search_progress){.step = progress, .refine = refine_progress, .context = terminal};
}

enum dsa_status dsa_terminal_log_to(struct dsa_terminal *terminal, const char *path, struct dsa_error *err)
{
	terminal->file = fopen(path, "ae");
	if (!terminal->file)
		return dsa_fail(err, DSA_E_IO, "%s: cannot open: %s", path, strerror(errno));
	return DSA_OK;
}

static void drop(void *context, enum dsa_log_level level, const char *text)
{
	(void)context;
	(void)level;
	(void)text;
}

void dsa_terminal_mute(struct dsa_terminal *terminal)
{
	terminal->log.line = drop;
	terminal->silent_progress = true;
}

void dsa_terminal_close(struct dsa_terminal *terminal)
{
	dsa_terminal_clear(terminal);
	if (terminal->file)
		fclose(terminal->file);
	terminal->file = NULL;
}

/* A word as a shell takes it back. */
static void put_word(FILE *out, const char *word)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-./:=,%+@";
	if (*word && word[strspn(word, plain)] == 0) {
		fputs(word, out);
		return;
	}
	putc('\'', out);
	for (; *word; word++) {
		if (*word == '\'')
			fputs("'\\'", out);
		putc(*word, out);
	}
	putc('\'', out);
}

static void put_resume_command(const struct dsa_terminal *terminal, FILE *out)
{
	bool resumes = false;
	fputs("dsacal: to go on:", out);
	for (int i = 0; i < terminal->word_count; i++) {
		putc(' ', out);
		put_word(out, terminal->words[i]);
		resumes |= !strcmp(terminal->words[i], "--resume");
	}
	fputs(resumes ? "\n" : " --resume\n", out);
}

int dsa_terminal_fail(struct dsa_terminal *terminal, enum dsa_status code, const struct dsa_error *err)
{
	dsa_terminal_clear(terminal);
	fputs(terminal->colour ? "\033[31mdsacal:\033[0m " : "dsacal: ", stderr);
	put_flat(stderr, err->text);
	putc('\n', stderr);
	if (terminal->file) {
		fputs("error ", terminal->file);
		put_flat(terminal->file, err->text);
		putc('\n', terminal->file);
	}
	if (code == DSA_E_INTERRUPTED && terminal->words)
		put_resume_command(terminal, stderr);
	return dsa_status_exit(code);
}
