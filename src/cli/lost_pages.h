/* lost_pages.h: a mapped file that is cut short, or whose disk fails, while the program reads it. */
#ifndef DSA_CLI_LOST_PAGES_H
#define DSA_CLI_LOST_PAGES_H

/* From now on such a file ends the process with a line that names it, and exit status 3. What a journal holds stays
 * good:
 * --resume goes on. Without handlers for signals the system ends it. */
void dsa_cli_watch_lost_pages(void);

#endif
