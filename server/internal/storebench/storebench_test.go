package main

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"example.com/routeguide/internal/process"
	"example.com/routeguide/server/internal/notes"
)

// The command measures each store, kills and opens the folder that it has grown, and goes on with it in another run.
func TestStorebenchMeasures(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	dir := t.TempDir()
	program, err := process.Build(".", "example.com/routeguide/server/internal/storebench", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	small := []string{"--dir", dir, "--chats", "4", "--round", "20ms"}
	printed, err := process.Run(t.Context(), program, append(small, "--rounds", "2", "--grow", "20000")...)
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{
		`(?m)^growing from 0 to 20000 notes$`, `(?m)^20000 notes: [1-9]`,
		`(?m)^none +[1-9]`, `(?m)^memory +[1-9]`, `(?m)^pebble +[1-9]`, `(?m)^redis +[1-9]`,
		`(?m)^the first 20000 notes after a start: [1-9]`,
		`(?m)^20 +[1-9]`, // The median square of 20 degrees has locations.
		`(?m)^opened after kill -9: `, `(?m)^replayed 20 logs of 1000 notes`,
	} {
		if !regexp.MustCompile(pattern).MatchString(printed) {
			t.Errorf("nothing matches %q in:\n%s", pattern, printed)
		}
	}
	printed, err = process.Run(t.Context(), program, append(small, "--rounds", "0", "--grow", "20000")...)
	if err != nil || strings.Contains(printed, "growing from 0") || strings.Contains(printed, "notes: ") {
		t.Errorf("the second run does not go on with the folder: %v\n%s", err, printed)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 {
		t.Errorf("the runs leave %q, want the folder that has grown", left)
	}
}

func TestSquareAround(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		latitude, longitude, degrees int32
		want                         notes.Rectangle
	}{
		{0, 0, 2, notes.Rectangle{South: -1_0000000, West: -1_0000000, North: 1_0000000, East: 1_0000000}},
		{90_0000000, 179_5000000, 2, notes.Rectangle{South: 88_0000000, West: 178_5000000, North: 90_0000000, East: -179_5000000}},
		{-90_0000000, -180_0000000, 20, notes.Rectangle{South: -90_0000000, West: 170_0000000, North: -70_0000000, East: -170_0000000}},
	} {
		if square := squareAround(test.latitude, test.longitude, test.degrees); square != test.want {
			t.Errorf("%d, %d: got %+v, want %+v", test.latitude, test.longitude, square, test.want)
		}
	}
}
