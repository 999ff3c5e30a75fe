package places

import (
	"math/rand/v2"
	"sync"
)

const (
	corpusBytes = 64 << 10
	words       = 2000 // in the vocabulary of the corpus
)

// corpus is random words, of 2 to 9 letters.
var corpus = sync.OnceValue(func() string {
	random := rand.New(rand.NewPCG(1, 1)) //nolint:gosec // Texts must be the same in each run.
	vocabulary := make([]string, words)
	for i := range vocabulary {
		word := make([]byte, 2+random.IntN(8))
		for j := range word {
			word[j] = byte('a' + random.IntN(26))
		}
		vocabulary[i] = string(word)
	}
	text := make([]byte, 0, corpusBytes+16)
	for len(text) < corpusBytes {
		text = append(append(text, vocabulary[random.IntN(words)]...), ' ')
	}
	return string(text)
})

// Text returns a text for a number: random words, so that a store that compresses notes gains no more by it than it
// does with what people write. It has at most 64 KiB.
func (g Generator) Text(number int64, bytes int) string {
	text := corpus()
	// Another stream than the location's: neighbors on the map have different texts.
	first := g.random(1<<62 | uint64(number)).IntN(len(text) - min(bytes, corpusBytes) + 1)
	return text[first : first+min(bytes, corpusBytes)]
}
