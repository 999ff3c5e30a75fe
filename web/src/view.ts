// What the fragment of the URL says: the centre and zoom of the map, and the place that is open: #map=ZOOM/LAT/LNG&place=LAT,LNG.
import { fromDegrees, type Location, mercatorLimit, plainDegrees, wrapLongitude } from "./location";

export interface View {
  readonly zoom: number;
  readonly latitude: number;
  readonly longitude: number;
}

/** The zoom level of a place without a view. */
const placeZoom = 14;

/** The view of a fragment: around its place if it has no other one, and undefined if it has neither. */
export function parseView(fragment: string): View | undefined {
  const value = parameter(fragment, "map");
  if (value === null) {
    const place = parsePlace(fragment);
    return place && { zoom: placeZoom, latitude: place.latitude / 1e7, longitude: place.longitude / 1e7 };
  }
  const [zoom, latitude, longitude] = numbers(value, "/", 3);
  if (zoom === undefined || latitude === undefined || longitude === undefined || Math.abs(latitude) > 90) {
    return undefined;
  }
  return {
    zoom: Math.round(zoom),
    latitude: Math.max(-mercatorLimit, Math.min(mercatorLimit, latitude)),
    longitude: wrapLongitude(longitude),
  };
}

/** The place of a fragment, or undefined if it has none. */
export function parsePlace(fragment: string): Location | undefined {
  const [latitude, longitude] = numbers(parameter(fragment, "place") ?? "", ",", 2);
  if (latitude === undefined || longitude === undefined || Math.abs(latitude) > 90) {
    return undefined;
  }
  return fromDegrees(latitude, longitude);
}

/** The fragment of a view, with as many digits as a pixel has, and of the open place, with all of its digits. */
export function formatFragment(view: View, place: Location | undefined): string {
  const digits = pixelDigits(view.zoom);
  const map = `#map=${view.zoom}/${view.latitude.toFixed(digits)}/${wrapLongitude(view.longitude).toFixed(digits)}`;
  return place ? `${map}&place=${plainDegrees(place.latitude)},${plainDegrees(place.longitude)}` : map;
}

/** The digits of degrees, after the point, that say where a pixel of the map is. */
export function pixelDigits(zoom: number): number {
  return Math.min(7, Math.max(2, Math.ceil(Math.log10((256 * 2 ** zoom) / 360)) + 1));
}

function parameter(fragment: string, name: string): string | null {
  return new URLSearchParams(fragment.replace(/^#/, "")).get(name);
}

/** The numbers of a text, or none unless there are as many as wanted. */
function numbers(text: string, separator: string, wanted: number): number[] {
  const found = text.split(separator).map((part) => (part.trim() === "" ? Number.NaN : Number(part)));
  return found.length === wanted && found.every(Number.isFinite) ? found : [];
}
