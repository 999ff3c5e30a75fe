// The map page: puts the parts together.
import "leaflet/dist/leaflet.css";
import "./style.css";
import { Code, type ConnectError } from "@connectrpc/connect";
import * as L from "leaflet";
import { Address } from "./address";
import { includes } from "./area";
import { Announcer } from "./announcer";
import { Clicks } from "./clicks";
import { Connection, type State } from "./connection";
import { Drafts } from "./drafts";
import { Features } from "./features";
import { Feed } from "./feed";
import type { Note } from "./gen/routeguide/v1/note_service_pb";
import { iconOf } from "./flatmarker";
import { Inbox } from "./inbox";
import { type Labels, maxLabels } from "./labels";
import { List, listLength } from "./list";
import { isSamePlace, type Location, locationKey, nearestCopy } from "./location";
import { addBasemap, createMap, fit, onOpen, uncover, viewOf } from "./map";
import { Markers } from "./markers";
import { byId, metaContent } from "./page";
import { Panel } from "./panel";
import { Places, type Place } from "./places";
import { parseView } from "./view";

/** Milliseconds after which the rest of the page does not wait for features any more. */
const patience = 400;

const connection = new Connection(showState);
/** Whether the map is where it is without anybody's choice. */
let isDefaultView = parseView(location.hash) === undefined;
const map = createMap(byId("map"));
let labels: Labels | undefined;
const places = new Places(map.getZoom());
const announcer = new Announcer();

const features = new Features(map, connection.guide, {
  onClick: (location, event) => clicks.click(location, event),
  onNone: () => {
    if (!isDefaultView) {
      return false;
    }
    void showFeatures();
    return true;
  },
  onChange: () => {
    panel.featuresChanged();
    list.schedule();
    labels?.setFeatures(features.within(viewOf(map), maxLabels));
  },
  onDrawn: () => {
    performance.mark("features-drawn");
    start();
  },
  onError: (error) => {
    if (connection.state === "connecting") {
      connection.setError(error);
    }
  },
});

const drafts: Drafts = new Drafts({
  call: (note, options) => connection.notes.leaveNote(note, options),
  onChange: (draft) => {
    panel.draftChanged(draft);
    showUnsaved();
  },
  onLeft: (note) => panel.hear(note, true),
  onError: askForToken,
});

const here = L.marker([0, 0], { icon: iconOf("here"), interactive: false, keyboard: false });

const panel: Panel = new Panel({
  call: (request, options) => connection.notes.followNotes(request, options),
  drafts,
  nameAt: (location) => features.nameAt(location),
  isFollowed: (location) => feed.followed !== undefined && includes(feed.followed, location),
  onOpen: (location) => {
    features.closeTooltip();
    ring(location);
    address.setPlace(location);
    uncover(map, location, byId("panel"));
    showUnsaved();
  },
  onClose: () => {
    here.remove();
    showUnsaved();
    address.setPlace(undefined);
  },
  onError: askForToken,
});

const open = (location: Location) => panel.open(location, places.get(locationKey(location)) !== undefined);

const clicks = new Clicks({
  onWait: ring,
  onClick: open,
  onDouble: (opened) => {
    if (opened) {
      panel.close();
    } else if (panel.location) {
      ring(panel.location);
    } else {
      here.remove();
    }
  },
});

const address: Address = new Address(map, {
  // The focus is on the heading: whoever follows a link reads first.
  onPlace: (place) => (place ? panel.open(place, true) : panel.close()),
});

const markers = new Markers(map, places, {
  onPlace: (place) => panel.open(place.location, true),
  onPlaces: (among) => panel.open((among[0] as Place).location, true, among),
});

const list = new List({
  features: () => features.nearest(listLength).map(({ location, name }) => ({ location, text: name })),
  notes: () => places.newestWithin(viewOf(map), listLength).map(({ location, newest }) => ({ location, text: newest.text })),
  onOpen: open,
});

const inbox = new Inbox(applyNote, () => {
  markers.schedule();
  list.schedule();
});

const feed = new Feed(connection, {
  onArea: (area) => {
    inbox.clear();
    places.keepWithin(area);
    markers.schedule();
    panel.followedChanged();
  },
  onReset: () => {
    inbox.flush(); // What waits there is from before, too.
    panel.reset();
  },
  onSnapshot: () => {
    inbox.flush();
    places.beginSnapshot();
  },
  onNotes: (notes, live) => inbox.put(notes, live),
  onCurrent: (afterSnapshot) => {
    inbox.flush();
    if (afterSnapshot) {
      places.endSnapshot();
      panel.refresh();
    }
    markers.schedule();
    if (performance.getEntriesByName("notes-current").length === 0) {
      performance.mark("notes-current");
    }
  },
});

let hasStarted = false;
map.on("moveend", () => {
  isDefaultView = false;
  features.show(viewOf(map));
  if (hasStarted) {
    feed.show(viewOf(map));
  }
});
onOpen(map, (location, event) => clicks.click(location, event), open);
byId("token").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = byId("token-value", HTMLInputElement);
  connection.setToken(field.value.trim());
  field.value = "";
  connection.set("connecting");
  features.show(viewOf(map));
  feed.restart();
});
window.addEventListener("beforeunload", (event) => {
  if (drafts.unsaved.length > 0) {
    event.preventDefault();
  }
});
features.show(viewOf(map));
address.start();
// Outlines, and the notes of thousands of places, take more to draw than features: they come after them, unless those are late.
setTimeout(start, patience);

function start(): void {
  if (!hasStarted) {
    hasStarted = true;
    feed.show(viewOf(map));
    labels = addBasemap(map, { url: metaContent("map-tiles"), attribution: metaContent("map-attribution") }, showTilesProblem);
    labels?.setFeatures(features.within(viewOf(map), maxLabels));
  }
}

/** Marks a place on the map. */
function ring(location: Location): void {
  here.setLatLng([location.latitude / 1e7, nearestCopy(location.longitude / 1e7, map.getCenter().lng)]).addTo(map);
}

/** Moves the map from where it begins by default to the features of a server that has others. */
async function showFeatures(): Promise<void> {
  const bounds = await features.extent().catch(() => undefined);
  if (isDefaultView) {
    fit(map, bounds);
  }
}

function showTilesProblem(problem: string): void {
  byId("tiles-problem").textContent = problem;
}

function applyNote(note: Note, live: boolean): void {
  if (places.add(note, live ? performance.now() : 0) && live) {
    announcer.add(note);
  }
  panel.hear(note, live);
}

/** Says which notes wait at places that are not open: nobody would see there whether they were left. */
function showUnsaved(): void {
  const waiting = drafts.unsaved.filter(({ location }) => !isSamePlace(location, panel.location));
  const button = byId("unsaved", HTMLButtonElement);
  const [first] = waiting;
  button.hidden = first === undefined;
  const status = first?.status || "A text is not left yet.";
  button.textContent = waiting.length > 1 ? `${waiting.length} texts are not left yet. ${status}` : status;
  button.onclick = () => first && open(first.location);
}

/** The page's stream, which was allowed with a token, may still be open when another call is not. */
function askForToken(error: ConnectError): void {
  if (error.code === Code.Unauthenticated) {
    connection.setError(error);
  }
}

function showState(state: State, reason: string): void {
  const words: Record<State, string> = {
    connecting: "Connecting…",
    live: "Live: notes appear as they are left.",
    reconnecting: `Not connected: ${reason}. Trying again…`,
    unauthenticated: `This server asks for a token. ${reason}`.trim(),
    "too-many": `There are too many places with notes here: zoom in. The server says: ${reason}.`,
    failed: `The server does not allow this: ${reason}`,
  };
  document.documentElement.dataset["connection"] = state;
  panel.followedChanged();
  byId("status").textContent = words[state];
  const token = byId("token", HTMLFormElement);
  const wasHidden = token.hidden;
  token.hidden = state !== "unauthenticated";
  // What somebody is typing must not go on in the field of the token.
  if (wasHidden && !token.hidden && document.activeElement !== byId("text")) {
    byId("token-value").focus();
  }
}
