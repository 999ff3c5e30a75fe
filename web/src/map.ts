// The map: Leaflet, its view and the URL, clicks and the keyboard.
import * as L from "leaflet";
import type { Area } from "./area";
import { Basemap } from "./basemap";
import { Labels } from "./labels";
import { fromDegrees, type Location, mercatorLimit, nearestCopy } from "./location";
import { escapeHTML } from "./text";
import { parseView, pixelDigits, type View } from "./view";

/** The features that the server has by default: places in New Jersey and around New York. */
const defaultBounds: L.LatLngBoundsLiteral = [[40.0, -75.02], [41.2, -73.38]];

/** Levels of the zoom: below, the world is smaller than most windows; above, a pixel is less than 20 cm. */
export const minZoom = 2;
export const maxZoom = 19;

const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)").matches;

export interface Tiles {
  /** A template with {z}, {x} and {y}; empty for the outlines that come with the page. */
  readonly url: string;
  readonly attribution: string;
}

/** Creates the map in an element, at the view of the URL. */
export function createMap(element: HTMLElement): L.Map {
  const map = L.map(element, {
    minZoom,
    maxZoom,
    zoomControl: false,
    attributionControl: false,
    maxBounds: [[-mercatorLimit, -Infinity], [mercatorLimit, Infinity]],
    maxBoundsViscosity: 1,
    zoomAnimation: !reducedMotion,
    fadeAnimation: false,
    markerZoomAnimation: !reducedMotion,
    inertia: !reducedMotion,
  });
  const view = parseView(location.hash);
  if (view) {
    setView(map, view);
  } else {
    fit(map, defaultBounds);
  }
  L.control.zoom({ position: "topright", zoomInTitle: "Zoom in", zoomOutTitle: "Zoom out" }).addTo(map);
  return map;
}

/**
 * Adds the base map to a map: tiles of a server, or the outlines that come with the page, and then returns their labels. OnTiles is told in
 * words that tiles do not come, and by an empty text that they do.
 */
export function addBasemap(map: L.Map, tiles: Tiles, onTiles: (problem: string) => void): Labels | undefined {
  const attribution = L.control.attribution({ prefix: '<a href="https://leafletjs.com" target="_blank" rel="noopener noreferrer">Leaflet</a>' });
  attribution.addAttribution('<a href="LICENSES.txt">Licences</a>');
  attribution.addAttribution(tiles.url === "" ? "Natural Earth, US Census Bureau" : escapeHTML(tiles.attribution));
  attribution.addTo(map);
  if (tiles.url !== "") {
    // Tile servers want to know the site; the page itself sends no referrer.
    const layer = L.tileLayer(tiles.url, { maxZoom, keepBuffer: 1, referrerPolicy: "origin" });
    let failed = 0;
    layer.on("loading", () => {
      failed = 0;
    });
    layer.on("tileerror", () => {
      if (failed++ === 0) {
        onTiles(`Tiles of ${hostOf(tiles.url)} cannot be loaded.`);
      }
    });
    layer.on("load", () => {
      if (failed === 0) {
        onTiles("");
      }
    });
    layer.addTo(map);
    return undefined;
  }
  const labels = new Labels(map);
  new Basemap((all) => labels.setAreas(all)).addTo(map);
  return labels;
}

function hostOf(template: string): string {
  return URL.canParse(template, location.href) ? new URL(template, location.href).host : template;
}

function clampZoom(zoom: number): number {
  return Math.max(minZoom, Math.min(maxZoom, zoom));
}

/** Keeps the first view out from under the panel, where there is room. */
function visiblePadding(element: HTMLElement): L.FitBoundsOptions {
  return element.clientWidth > 900 ? { paddingTopLeft: [380, 10], paddingBottomRight: [10, 30] } : { paddingTopLeft: [0, 80] };
}

/** Shows a view at once. */
export function setView(map: L.Map, view: View): void {
  map.setView([view.latitude, view.longitude], clampZoom(view.zoom), { animate: false });
}

/** Shows all of an area at once, or the world. */
export function fit(map: L.Map, bounds: L.LatLngBoundsExpression | undefined): void {
  if (bounds) {
    map.fitBounds(bounds, { animate: false, ...visiblePadding(map.getContainer()), maxZoom: 10 });
  } else {
    map.setView([20, 0], minZoom, { animate: false });
  }
}

/** Moves the map if a location that is opened is under the panel, which overlaps it. */
export function uncover(map: L.Map, location: Location, panel: HTMLElement): void {
  const size = map.getSize();
  const { left, right, top } = panel.getBoundingClientRect();
  const isSheet = right - left > size.x / 2; // at the bottom of a small screen; otherwise at the left
  const at = L.latLng(location.latitude / 1e7, nearestCopy(location.longitude / 1e7, map.getCenter().lng));
  map.panInside(at, isSheet
    ? { paddingTopLeft: [30, 130], paddingBottomRight: [30, Math.max(0, Math.min(size.y - 150, size.y - top + 30))] }
    : { paddingTopLeft: [Math.min(size.x / 2, right + 30), 30], paddingBottomRight: [60, 40] });
}

/** The area in the window. */
export function viewOf(map: L.Map): Area {
  const bounds = map.getBounds();
  return { south: bounds.getSouth(), north: bounds.getNorth(), west: bounds.getWest(), east: bounds.getEast() };
}

/** The location of a point of the map, with the digits that a pixel has: so a click twice at a pixel is at one location. */
export function locationAt(map: L.Map, point: L.LatLng): Location {
  const digits = pixelDigits(map.getZoom());
  return fromDegrees(Number(point.lat.toFixed(digits)), Number(point.lng.toFixed(digits)));
}

/** Calls click with the location of a click on the map, and open with that of its centre for Enter on the focused map. */
export function onOpen(map: L.Map, click: (location: Location, event: MouseEvent) => void, open: (location: Location) => void): void {
  map.on("click", (event: L.LeafletMouseEvent) => click(locationAt(map, event.latlng), event.originalEvent));
  const element = map.getContainer();
  element.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target === element) {
      event.preventDefault(); // Otherwise the Enter goes on into the form that opens.
      open(locationAt(map, map.getCenter()));
    }
  });
}
