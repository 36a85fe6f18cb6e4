/* config_file.h: options as YAML: the config.yaml that a run leaves, and files for --config.
 *
 * Both are one map of "option: value". A key is a name of the option table; what a run writes, --config reads. */
#ifndef DSA_CLI_CONFIG_FILE_H
#define DSA_CLI_CONFIG_FILE_H

#include "dsa/journal.h"
#include "options.h"

/* Sets what the file at path says on top of options; options->command decides which keys there are. corpus and baseline
 * are lists; a corpus is "[NAME=]PATH[:weight=W]" or a map of path, name, weight. null leaves the default. Strings from
 * the arena. DSA_E_USAGE with file and line: an unknown key, with the nearest one; a value of another type; a file of
 * another command. */
DSA_CHECKED enum dsa_status dsa_config_file_read(struct dsa_cli_options *options, const char *path,
                                                 struct dsa_arena *arena, struct dsa_error *err);
/* The resolved options of a command as YAML text "name: value" lines, in table order. Text from the arena. */
DSA_CHECKED enum dsa_status dsa_cli_config_yaml(const struct dsa_cli_options *options, struct dsa_arena *arena,
                                                const char **out, struct dsa_error *err);
/* The options that shape figures, as the journal compares them; not where the model and documents lie, whose identity
 * is theirs. */
DSA_CHECKED enum dsa_status dsa_cli_config_fields(const struct dsa_cli_options *options, struct dsa_arena *arena,
                                                  struct dsa_journal_field **fields, int *count, struct dsa_error *err);

#endif
