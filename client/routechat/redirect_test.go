package routechat_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
)

func TestTokenIsNotSentAfterRedirect(t *testing.T) {
	t.Parallel()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	serve := func(handler http.HandlerFunc) string {
		server := httptest.NewUnstartedServer(handler)
		server.Config.Protocols = &protocols
		server.Start()
		t.Cleanup(server.Close)
		return server.URL
	}
	target := serve(func(_ http.ResponseWriter, request *http.Request) {
		t.Errorf("the target of the redirect got the token %q", request.Header.Get("Authorization"))
	})
	origin := serve(func(response http.ResponseWriter, request *http.Request) {
		if got := request.Header.Get("Authorization"); got != "Bearer secret" {
			t.Errorf("got %q", got)
		}
		http.Redirect(response, request, target+request.URL.Path, http.StatusTemporaryRedirect)
	})
	client, err := routechat.Config{Token: "secret"}.New(origin)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.GetFeature(t.Context(), &routeguide.Point{}); err == nil {
		t.Error("a redirected call has no error")
	}
}
