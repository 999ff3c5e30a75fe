// Package browser tests the map page as people have it: served by the built server, in Debian's Chromium, without a window,
// driven over the Chrome DevTools Protocol by mouse, touch and keys. It knows the page by its elements alone, and nothing of
// its code.
//
// Whatever a page logs as a warning or an error, each uncaught exception, violation of the Content-Security-Policy, failed
// request and request to another server fails its test, unless the test allows it by name. Each page leaves a picture in
// pictures/, which Git ignores.
package browser
