package command

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// mapper returns an option that parses flags of type T.
func mapper[T any](parse func(text string) (T, error)) kong.Option {
	return kong.TypeMapper(reflect.TypeFor[T](), kong.MapperFunc(func(ctx *kong.DecodeContext, target reflect.Value) error {
		var text string
		if err := ctx.Scan.PopValueInto("value", &text); err != nil {
			return err
		}
		value, err := parse(text)
		if err != nil {
			return err
		}
		target.Set(reflect.ValueOf(value))
		return nil
	}))
}

// parseDuration is [time.ParseDuration] with leading whole days of 24 hours: 7d, 1d12h.
func parseDuration(text string) (time.Duration, error) {
	invalid := fmt.Errorf("%q is not a duration: want a number and a unit, such as 500ms, 90s, 5m, 36h, 7d or 1d12h", text)
	unsigned, negative := strings.CutPrefix(text, "-")
	days, rest, found := strings.Cut(unsigned, "d")
	if !found {
		days, rest = "0", unsigned
	} else if rest == "" {
		rest = "0"
	}
	number, err := strconv.ParseUint(days, 10, 16)
	if err != nil || strings.ContainsAny(rest, "+-") {
		return 0, invalid
	}
	sum := time.Duration(number) * 24 * time.Hour
	more, err := time.ParseDuration(rest)
	if err != nil || more > math.MaxInt64-sum {
		return 0, invalid
	}
	if sum += more; negative {
		sum = -sum
	}
	return sum, nil
}

// parseLevel parses a log level, in upper or lower case.
func parseLevel(text string) (level slog.Level, err error) {
	name := strings.ToUpper(text)
	if name == "WARNING" {
		name = "WARN"
	}
	if level.UnmarshalText([]byte(name)) != nil {
		return level, errors.New("want debug, info, warn (or warning) or error, in upper or lower case")
	}
	return level, nil
}
