package command

import (
	"fmt"
	"runtime/debug"
)

// A Build says what a program was built from.
type Build struct {
	// Version is that of the module, or (devel).
	Version string
	// Revision is the commit of the source, with "+dirty" if the source was changed since; empty if it is not known.
	Revision string
	// Go is the version of Go.
	Go string
}

// ThisBuild returns what this program was built from.
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
