package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"example.com/routeguide/internal/command"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/notefile"
	"example.com/routeguide/server/internal/notes/pebblestore"
	"example.com/routeguide/server/internal/validate"
)

const toolDescription = `Export, import and count the notes of a store.

Export writes newline-delimited JSON, one note a line with its time, so that notes can move to another store, be kept as a backup, and be looked at with jq. Export and stats also work while a server has the store open: they ask that server. Import can be repeated after a crash: a note that is there with the same time is not added again. A note that is dated in the future gets the present time, and is not added again either.`

type toolFlags struct {
	Export struct {
		Store string `renamed:"notes" default:"pebble:routeguide-notes" placeholder:"STORE" help:"The store to read (${default}). ${stores}"`
		To    string `default:"-" placeholder:"FILE" help:"Write there; - is standard output (${default}). The file is replaced atomically when the export is complete."`
	} `cmd:"" help:"Write all notes."`
	Import struct {
		Store   string   `renamed:"notes" default:"pebble:routeguide-notes" placeholder:"STORE" help:"The store to add to (${default}). ${stores}"`
		From    string   `default:"-" placeholder:"FILE" help:"Read there; - is standard input (${default})."`
		MaxText byteSize `default:"64KiB" placeholder:"BYTES" help:"Take notes with texts up to this length (${default}), as a server does with its own --max-text; all of a note may be 1 KiB longer. 0 is no bound."`
	} `cmd:"" help:"Add the notes of an export, with their times."`
	Stats struct {
		Store string `renamed:"notes" default:"pebble:routeguide-notes" placeholder:"STORE" help:"The store to count (${default}). ${stores}"`
	} `cmd:"" help:"Count notes, locations and bytes."`
}

// runTool runs a subcommand on a store.
func runTool(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var flags toolFlags
	parsed, err := command.Parse(&flags, "server notes", toolDescription, map[string]string{"stores": storesHelp}, args, stdout, stderr)
	if err != nil {
		return err
	}
	for _, line := range parsed.Renamed {
		fmt.Fprintf(stderr, "server notes: %s\n", line)
	}
	switch parsed.Command {
	case "export":
		return exportNotes(ctx, flags.Export.Store, flags.Export.To, stdout, stderr)
	case "import":
		return importNotes(ctx, flags.Import.Store, flags.Import.From, int(flags.Import.MaxText), stdout, stderr)
	default:
		return countNotes(ctx, flags.Stats.Store, stdout, stderr)
	}
}

// openForTool opens a store for reading. If a server has it open, the result is the path of that server's socket instead.
func openForTool(where string, stderr io.Writer) (store notes.Store, socket string, err error) {
	if dir, ok := pebbleDir(where); ok {
		// Reading must not create a store.
		files, err := os.ReadDir(dir)
		if err == nil && len(files) == 0 {
			err = errors.New("there is no store in this folder")
		}
		if err != nil {
			return nil, "", fmt.Errorf("--store %s: %w", where, err)
		}
	}
	store, err = openToolStore(where, true, stderr)
	if dir, ok := pebbleDir(where); ok && errors.Is(err, pebblestore.ErrInUse) {
		return nil, filepath.Join(dir, socketName), nil
	}
	return store, "", err
}

func openToolStore(where string, readOnly bool, stderr io.Writer) (notes.Store, error) {
	if where == "memory:" {
		return nil, command.Usagef("--store memory: is in the memory of its server, and cannot be read by others")
	}
	return openStore(where, storeOptions{
		readOnly: readOnly,
		logger:   slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelError})),
		fatal: func(err error) {
			fmt.Fprintf(stderr, "server notes: %v\n", err)
			os.Exit(command.ExitError)
		},
	})
}

func exportNotes(ctx context.Context, where, to string, stdout, stderr io.Writer) error {
	store, socket, err := openForTool(where, stderr)
	if err != nil {
		return err
	}
	out, partial := stdout, (*os.File)(nil)
	if to != "-" {
		if partial, err = os.CreateTemp(filepath.Dir(to), filepath.Base(to)+".part-*"); err != nil {
			return errors.Join(fmt.Errorf("--to: %w", err), closeStore(store))
		}
		defer os.Remove(partial.Name()) // On success it has been renamed by then.
		out = partial
	}
	progress := command.NewProgress(stderr)
	show := func(notes int) { progress.Showf("exported %d notes", notes) }
	if store == nil {
		err = notefile.ExportFrom(ctx, socket, &lineCounter{to: out, show: show})
	} else {
		_, err = notefile.Export(ctx, store, out, show)
	}
	progress.End()
	err = errors.Join(err, closeStore(store))
	if partial != nil {
		err = errors.Join(err, partial.Sync(), partial.Close())
		if err == nil {
			err = os.Rename(partial.Name(), to)
		}
	}
	return err
}

func importNotes(ctx context.Context, where, from string, maxText int, stdout, stderr io.Writer) error {
	in := io.Reader(os.Stdin)
	if from != "-" {
		file, err := os.Open(from)
		if err != nil {
			return fmt.Errorf("--from: %w", err)
		}
		defer file.Close()
		in = file
	}
	store, err := openToolStore(where, false, stderr)
	if errors.Is(err, pebblestore.ErrInUse) {
		return fmt.Errorf("%w: stop the server first", err)
	}
	if err != nil {
		return err
	}
	progress := command.NewProgress(stderr)
	show := func(notes int) { progress.Showf("read %d notes", notes) }
	added, present, redated, err := notefile.Import(ctx, store, in, maxText, show)
	progress.End()
	fmt.Fprintf(stdout, "added %d notes; %d were there already%s\n", added, present, redatedText(redated))
	if invalid, ok := errors.AsType[*validate.Error](err); ok && invalid.Field == "message" {
		err = fmt.Errorf("%w; --max-text takes longer texts", err)
	}
	return errors.Join(err, store.Close())
}

// redatedText describes the notes whose future times were replaced, for the summary of an import.
func redatedText(count int) string {
	switch count {
	case 0:
		return ""
	case 1:
		return "; 1 was dated in the future and got the present time"
	default:
		return fmt.Sprintf("; %d were dated in the future and got the present time", count)
	}
}

func countNotes(ctx context.Context, where string, stdout, stderr io.Writer) error {
	store, socket, err := openForTool(where, stderr)
	if err != nil {
		return err
	}
	progress := command.NewProgress(stderr)
	show := func(notes int) { progress.Showf("counted %d notes", notes) }
	var stats notefile.Stats
	if store == nil {
		stats, err = notefile.CountFrom(ctx, socket)
	} else {
		stats, err = notefile.Count(ctx, store, show)
	}
	progress.End()
	if err := errors.Join(err, closeStore(store)); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "notes        %d\nlocations    %d\nbytes        %d\nlongest log  %d notes, at latitude %d, longitude %d\n",
		stats.Notes, stats.Locations, stats.Bytes, stats.Longest, stats.LongestAt.Latitude, stats.LongestAt.Longitude)
	if stats.Notes > 0 {
		fmt.Fprintf(stdout, "oldest       %s\nnewest       %s\n", stats.Oldest.Format(time.RFC3339Nano), stats.Newest.Format(time.RFC3339Nano))
	}
	if dir, ok := pebbleDir(where); ok {
		fmt.Fprintf(stdout, "folder       %d bytes\n", pebblestore.FolderSize(dir))
	}
	return nil
}

// lineCounter counts the lines that are written through it, one a note, for the progress of an export from a running server.
type lineCounter struct {
	to    io.Writer
	show  func(lines int)
	lines int
}

func (l *lineCounter) Write(p []byte) (int, error) {
	l.lines += bytes.Count(p, []byte("\n"))
	l.show(l.lines)
	return l.to.Write(p)
}

func closeStore(store notes.Store) error {
	if store == nil {
		return nil
	}
	return store.Close()
}
