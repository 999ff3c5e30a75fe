package command

import (
	"fmt"
	"runtime/debug"
)

// A Build is the version of a program.
type Build struct {
	// Version is the version of the module, or (devel).
	Version string
	// Revision is the commit, with "+dirty" if the work tree had changes; empty if unknown.
	Revision string
	// Go is the Go version.
	Go string
}

// ThisBuild returns the version of this program.
func ThisBuild() Build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return Build{}
	}
	build := Build{Version: info.Main.Version, Go: info.GoVersion}
	for _, setting := range info.Settings {
		switch {
		case setting.Key == "vcs.revision":
			build.Revision = setting.Value
		case setting.Key == "vcs.modified" && setting.Value == "true":
			build.Revision += "+dirty"
		}
	}
	return build
}

func (b Build) String() string {
	revision := b.Revision
	if revision == "" {
		revision = "unknown"
	}
	return fmt.Sprintf("%s, revision %s, %s", b.Version, revision, b.Go)
}
