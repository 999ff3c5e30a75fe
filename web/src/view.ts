// The place and zoom of the map, in the fragment of the URL: #map=ZOOM/LAT/LNG.
import { mercatorLimit, wrapLongitude } from "./location";

export interface View {
  readonly zoom: number;
  readonly latitude: number;
  readonly longitude: number;
}

/** The view of a fragment, or undefined if it has none. */
export function parseView(fragment: string): View | undefined {
  const value = new URLSearchParams(fragment.replace(/^#/, "")).get("map");
  const parts = value?.split("/") ?? [];
  const [zoom, latitude, longitude] = parts.map((part) => (part.trim() === "" ? Number.NaN : Number(part)));
  if (parts.length !== 3 || zoom === undefined || latitude === undefined || longitude === undefined) {
    return undefined;
  }
  if (!Number.isFinite(zoom) || !Number.isFinite(longitude) || !(Math.abs(latitude) <= 90)) {
    return undefined;
  }
  return {
    zoom: Math.round(zoom),
    latitude: Math.max(-mercatorLimit, Math.min(mercatorLimit, latitude)),
    longitude: wrapLongitude(longitude),
  };
}

/** The fragment of a view, with as many digits as a pixel has. */
export function formatView(view: View): string {
  const digits = pixelDigits(view.zoom);
  return `#map=${view.zoom}/${view.latitude.toFixed(digits)}/${wrapLongitude(view.longitude).toFixed(digits)}`;
}

/** The digits of degrees, after the point, that say where a pixel of the map is. */
export function pixelDigits(zoom: number): number {
  return Math.min(7, Math.max(2, Math.ceil(Math.log10((256 * 2 ** zoom) / 360)) + 1));
}
