package command

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// renamedTag is the tag of a renamed flag: renamed:"old-name". The old name and its environment variable still work,
// but help does not show them.
const renamedTag = "renamed"

// acceptRenamed adds the old names of flags as aliases, and their environment variables if variables is set.
func acceptRenamed(parser *kong.Kong, variables bool) error {
	return visitFlags(parser, func(flag *kong.Flag) {
		if old := flag.Tag.Get(renamedTag); old != "" {
			flag.Aliases = append(flag.Aliases, old)
			if variables {
				flag.Tag.Envs = append(flag.Tag.Envs, variable(old))
			}
		}
	})
}

// renamed returns a warning for each old name in args or in the environment.
func renamed(parser *kong.Kong, args []string) []string {
	var lines []string
	// Visit returns only errors of the callback, and that has none.
	_ = visitFlags(parser, func(flag *kong.Flag) {
		old := flag.Tag.Get(renamedTag)
		if old == "" {
			return
		}
		if slices.ContainsFunc(args, func(arg string) bool { return arg == "--"+old || strings.HasPrefix(arg, "--"+old+"=") }) {
			lines = append(lines, fmt.Sprintf("--%s is called --%s now", old, flag.Name))
		}
		if os.Getenv(variable(old)) != "" {
			lines = append(lines, fmt.Sprintf("%s is called %s now", variable(old), variable(flag.Name)))
		}
	})
	slices.Sort(lines)
	return slices.Compact(lines) // Subcommands may share a flag.
}

// prefix is the first part of all environment variables.
const prefix = "ROUTEGUIDE"

// variable returns the environment variable of a flag.
func variable(flag string) string {
	return prefix + "_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func visitFlags(parser *kong.Kong, visit func(*kong.Flag)) error {
	return kong.Visit(parser.Model, func(node kong.Visitable, next kong.Next) error {
		if flag, ok := node.(*kong.Flag); ok {
			visit(flag)
		}
		return next(nil)
	})
}
