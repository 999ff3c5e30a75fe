//go:build !unix

package pebblestore

import "os"

// mapFile reads a file.
func mapFile(name string) (content []byte, unmap func() error, err error) {
	content, err = os.ReadFile(name)
	return content, func() error { return nil }, err
}
