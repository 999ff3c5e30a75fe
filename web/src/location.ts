// Locations, in E7 degrees as on the wire, and where they are on a map in the Mercator projection.

/** A location in E7 degrees: degrees times 10^7. */
export interface Location {
  readonly latitude: number;
  readonly longitude: number;
}

/** Degrees of latitude that a Mercator map ends at, where it is square. */
export const mercatorLimit = 85.0511287798066;

/** The identity of a location: equal if and only if both coordinates are. */
export function locationKey(location: Location): string {
  return `${location.latitude},${location.longitude}`;
}

/** Whether two places are the same, or neither is one. */
export function isSamePlace(a: Location | undefined, b: Location | undefined): boolean {
  return a === undefined || b === undefined ? a === b : locationKey(a) === locationKey(b);
}

/** Degrees, any world copy of the longitude, to E7 degrees on Earth. */
export function fromDegrees(latitude: number, longitude: number): Location {
  const wrapped = wrapLongitude(longitude);
  return { latitude: toE7(Math.max(-90, Math.min(90, latitude))), longitude: toE7(wrapped) };
}

/** Degrees to E7 degrees. The sum makes 0 of -0. */
export function toE7(degrees: number): number {
  return Math.round(degrees * 1e7) + 0;
}

/** A longitude in degrees to the same meridian between -180 and 180. */
export function wrapLongitude(degrees: number): number {
  if (degrees >= -180 && degrees <= 180) {
    return degrees;
  }
  return ((((degrees + 180) % 360) + 360) % 360) - 180;
}

/** The world copy of a longitude that is nearest to a meridian, all in degrees. */
export function nearestCopy(longitude: number, meridian: number): number {
  return longitude + 360 * Math.round((meridian - longitude) / 360);
}

/** All copies of a longitude between two meridians, all in degrees. */
export function copiesWithin(longitude: number, west: number, east: number): number[] {
  const copies: number[] = [];
  for (let copy = longitude + 360 * Math.ceil((west - longitude) / 360); copy <= east; copy += 360) {
    copies.push(copy);
  }
  return copies;
}

/** The share of the width of the world map that is west of a longitude in degrees: 0 to 1 for -180 to 180. */
export function mercatorX(longitude: number): number {
  return longitude / 360 + 0.5;
}

/** The share of the height of the world map that is north of a latitude in degrees: 0 to 1. */
export function mercatorY(latitude: number): number {
  const clamped = Math.max(-mercatorLimit, Math.min(mercatorLimit, latitude));
  const sine = Math.sin((clamped * Math.PI) / 180);
  return 0.5 - Math.log((1 + sine) / (1 - sine)) / (4 * Math.PI);
}

/** The latitude in degrees of a share of the height of the world map. */
export function mercatorLatitude(y: number): number {
  return (Math.atan(Math.sinh(Math.PI * (1 - 2 * y))) * 180) / Math.PI;
}

/** A location for people: 40.7127° N, 74.0059° W. It names all digits, since locations are equal only if all are. */
export function formatLocation(location: Location): string {
  return `${formatDegrees(location.latitude, "N", "S")}, ${formatDegrees(location.longitude, "E", "W")}`;
}

function formatDegrees(e7: number, positive: string, negative: string): string {
  return `${plainDegrees(Math.abs(e7))}° ${e7 < 0 ? negative : positive}`;
}

/** E7 degrees in degrees, with all digits and never with an exponent. */
export function plainDegrees(e7: number): string {
  return (e7 / 1e7).toFixed(7).replace(/\.?0+$/, "");
}

/** Those of the entries that are nearest to a location, the nearest first: for views, in which the Earth is flat. */
export function nearestTo<T extends { readonly location: Location }>(centre: { readonly latitude: number; readonly longitude: number }, entries: readonly T[], limit: number): T[] {
  const width = Math.cos((centre.latitude * Math.PI) / 180);
  const distance = ({ location }: T) => {
    const longitude = location.longitude / 1e7;
    return Math.hypot(location.latitude / 1e7 - centre.latitude, (nearestCopy(longitude, centre.longitude) - centre.longitude) * width);
  };
  return entries.map((entry) => ({ entry, distance: distance(entry) })).sort((a, b) => a.distance - b.distance).slice(0, limit).map(({ entry }) => entry);
}
