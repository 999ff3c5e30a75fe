// The map page: puts the parts together.
import "leaflet/dist/leaflet.css";
import "./style.css";
import { Code, type ConnectError } from "@connectrpc/connect";
import * as L from "leaflet";
import { includes } from "./area";
import { Announcer } from "./announcer";
import { Connection, type State } from "./connection";
import { Drafts } from "./drafts";
import { Features } from "./features";
import { Feed } from "./feed";
import type { Note } from "./gen/routeguide/v1/note_service_pb";
import { iconOf } from "./flatmarker";
import { Inbox } from "./inbox";
import { type Labels, maxLabels } from "./labels";
import { List, listLength } from "./list";
import { type Location, locationKey, nearestCopy } from "./location";
import { addBasemap, createMap, onOpen, uncover, viewOf } from "./map";
import { Markers } from "./markers";
import { byId, metaContent } from "./page";
import { Panel } from "./panel";
import { Places, type Place } from "./places";

/** Milliseconds after which the rest of the page does not wait for features any more. */
const patience = 400;

const connection = new Connection(showState);
const map = createMap(byId("map"));
let labels: Labels | undefined;
const places = new Places(map.getZoom());
const announcer = new Announcer();

const features = new Features(map, connection.guide, {
  onOpen: (location) => panel.open(location, places.get(locationKey(location)) !== undefined),
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
  onChange: (draft) => panel.draftChanged(draft),
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
    here.setLatLng([location.latitude / 1e7, nearestCopy(location.longitude / 1e7, map.getCenter().lng)]).addTo(map);
    uncover(map, location, byId("panel"));
  },
  onClose: () => here.remove(),
  onError: askForToken,
});

const open = (location: Location) => panel.open(location, places.get(locationKey(location)) !== undefined);

const markers = new Markers(map, places, {
  onPlace: (place) => panel.open(place.location, true),
  onPlaces: (among) => panel.open((among[0] as Place).location, true, among),
});

const list = new List({
  features: () => features.within(viewOf(map), listLength).map(({ location, name }) => ({ location, text: name })),
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
  onReset: () => panel.reset(),
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
  features.show(viewOf(map));
  if (hasStarted) {
    feed.show(viewOf(map));
  }
});
onOpen(map, open);
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
  if (drafts.hasUnsaved) {
    event.preventDefault();
  }
});
features.show(viewOf(map));
// Outlines, and the notes of thousands of places, take more to draw than features: they come after them, unless those are late.
setTimeout(start, patience);

function start(): void {
  if (!hasStarted) {
    hasStarted = true;
    feed.show(viewOf(map));
    labels = addBasemap(map, { url: metaContent("map-tiles"), attribution: metaContent("map-attribution") });
    labels?.setFeatures(features.within(viewOf(map), maxLabels));
  }
}

function applyNote(note: Note, live: boolean): void {
  if (places.add(note, live ? performance.now() : 0) && live) {
    announcer.add(note);
  }
  panel.hear(note, live);
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
  byId("status").textContent = words[state];
  const token = byId("token", HTMLFormElement);
  const wasHidden = token.hidden;
  token.hidden = state !== "unauthenticated";
  if (wasHidden && !token.hidden) {
    byId("token-value").focus();
  }
}
