// Command server serves RouteGuide. Its subcommand "notes" exports, imports and counts the notes of a store.
package main

import (
	"context"
	"io"
	"os"

	"example.com/routeguide/internal/command"
)

func main() {
	os.Exit(command.Main("server", run))
}

// run serves, or runs a subcommand on a store if the first argument is "notes".
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == "notes" {
		return runTool(ctx, args[1:], stdout, stderr)
	}
	return runServer(ctx, args, stdout, stderr)
}
