package main

import (
	"errors"
	"fmt"
	"slices"
)

// grow lets each of our servers that keeps notes on the disk take options.grow notes, if it is measured. They go on
// with them in each round, as with those of the rounds before.
func grow(contestants []*contestant, options *options) error {
	if options.grow == 0 {
		return nil
	}
	for _, contestant := range contestants {
		if !contestant.keeps || !slices.ContainsFunc(options.selected(), contestant.modes) {
			continue
		}
		server, address, err := contestant.start()
		if err != nil {
			return err
		}
		_, err = runLoad(options, address, "--mode", "written-ahead", "--chats", "64", "--notes", fmt.Sprint(options.grow), "--duration", "24h")
		if err := errors.Join(err, server.Stop()); err != nil {
			return fmt.Errorf("grow %s: %w", contestant.name, err)
		}
	}
	return nil
}
