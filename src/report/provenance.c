#include "dsa/provenance.h"

#include <string.h>
#include <time.h>

#ifndef DSA_VERSION
#define DSA_VERSION ""
#endif
#ifndef DSA_COMMIT
#define DSA_COMMIT ""
#endif

static const char *known(const char *text)
{
	return strlen(text) ? text : "unknown";
}

const char *dsa_version(void)
{
	return known(DSA_VERSION);
}

const char *dsa_commit(void)
{
	return known(DSA_COMMIT);
}

void dsa_date_format(int64_t unix_seconds, char out[DSA_DATE_CHARS])
{
	const int64_t last = 253402300799; /* 9999-12-31T23:59:59Z */
	time_t clamped = unix_seconds < 0 ? 0 : unix_seconds > last ? last : unix_seconds;
	struct tm tm = {.tm_year = 70, .tm_mday = 1};
	gmtime_r(&clamped, &tm);
	strftime(out, DSA_DATE_CHARS, "%Y-%m-%dT%H:%M:%SZ", &tm);
}
