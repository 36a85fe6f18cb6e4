/* clock.h: seconds that only go forward. */
#ifndef DSA_CLOCK_H
#define DSA_CLOCK_H

double dsa_clock_seconds(void); /* of no meaning but by their differences */

#endif
