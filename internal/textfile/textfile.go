// Package textfile decodes text files from the editors and shells of any system: UTF-8, with or without a byte order
// mark (BOM). It does not know their formats.
package textfile

import (
	"bytes"
	"errors"
	"fmt"
)

// BOM is the byte order mark in UTF-8, which some editors write.
const BOM = "\xef\xbb\xbf"

// Decode returns a file without its BOM. UTF-16 and binary files are an error, with the line.
func Decode(file []byte) ([]byte, error) {
	text := bytes.TrimPrefix(file, []byte(BOM))
	if offset, err := Check(text); err != nil {
		return nil, fmt.Errorf("line %d: %w", 1+bytes.Count(text[:offset], []byte("\n")), err)
	}
	return text, nil
}

// Check returns an error if text is UTF-16 or binary, and the offset in bytes of the evidence.
func Check(text []byte) (offset int, err error) {
	if bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.HasPrefix(text, []byte("\xfe\xff")) {
		return 0, errors.New("it begins with a byte order mark of UTF-16 (save the file as UTF-8)")
	}
	if offset := bytes.IndexByte(text, 0); offset >= 0 {
		return offset, errors.New("a zero byte in a text file (save the file as UTF-8 if it is UTF-16)")
	}
	return 0, nil
}
