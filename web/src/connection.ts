// The connection to the server: its transport, the token, and its state as the page shows it.
import { Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import { RouteGuide } from "./gen/routeguide/route_guide_pb";
import { isTooManyLocations } from "./follow";
import { NoteService } from "./gen/routeguide/v1/note_service_pb";

export type State = "connecting" | "live" | "reconnecting" | "unauthenticated" | "too-many" | "failed";

/** The key of the token in the storage of the tab. */
const tokenKey = "routeguide-token";

/** The clients of the two services, and the state of the page's stream. */
export class Connection {
  private current: State = "connecting";
  private token = storedToken();

  private readonly authorize: Interceptor = (next) => (request) => {
    if (this.token !== "") {
      request.header.set("Authorization", `Bearer ${this.token}`);
    }
    return next(request);
  };

  private readonly transport = createConnectTransport({
    baseUrl: new URL(".", location.href).href.replace(/\/$/, ""),
    useBinaryFormat: true,
    interceptors: [this.authorize],
  });

  readonly guide = createClient(RouteGuide, this.transport);
  readonly notes = createClient(NoteService, this.transport);

  /** Is told of each state, with the reason in words. */
  constructor(private readonly onState: (state: State, reason: string) => void) {}

  get state(): State {
    return this.current;
  }

  set(state: State, reason = ""): void {
    this.current = state;
    this.onState(state, reason);
  }

  /** The state after a call that failed: whether it will be repeated or not. */
  setError(error: ConnectError): void {
    switch (error.code) {
      case Code.Unauthenticated:
        this.set("unauthenticated", this.token === "" ? "" : "It does not accept this one.");
        break;
      case Code.InvalidArgument:
      case Code.PermissionDenied:
      case Code.Unimplemented:
        this.set("failed", error.rawMessage);
        break;
      default:
        if (isTooManyLocations(error)) {
          this.set("too-many", error.rawMessage);
        } else {
          this.set("reconnecting", wordsOf(error));
        }
    }
  }

  /** Sends a token with all further calls, and keeps it for this tab. */
  setToken(token: string): void {
    this.token = token;
    try {
      sessionStorage.setItem(tokenKey, token);
    } catch {
      // Storage is denied: the token lasts as long as the page.
    }
  }
}

/** An error for people: browsers do not say why there was no response. */
export function wordsOf(error: ConnectError): string {
  return error.cause instanceof TypeError ? "the server cannot be reached" : error.rawMessage;
}

function storedToken(): string {
  try {
    return sessionStorage.getItem(tokenKey) ?? "";
  } catch {
    return "";
  }
}
