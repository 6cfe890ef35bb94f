/** What a repository is called at a destination, and whether two could be called the same. */
import { SlipwayError } from "../../core/errors.ts";
import { isRepositoryName } from "../../oci/names.ts";

export interface NamingRule {
  readonly namespace: string;
  /** Leading path elements of the source that the namespace replaces; negative: all but the last. */
  readonly replaceCount: number;
}

export interface PathLimits {
  readonly minPathElements: number;
  readonly maxPathElements: number | null;
}

export interface NamedDestination extends NamingRule {
  readonly registryId: number;
}

/** Throws BAD_REQUEST where the source has too few path elements to replace. */
export function destinationName(source: string, { namespace, replaceCount }: NamingRule): string {
  if (namespace === "") return source;
  const elements = source.split("/");
  const leading = elements.slice(0, -1);
  if (replaceCount > leading.length) {
    throw invalid(
      `the source repository ${JSON.stringify(source)} contains only ${leading.length} path components [${leading.join(" ")}] ` +
        `excepting the last one, but the destination namespace flattening level is ${replaceCount}`,
    );
  }
  const kept = replaceCount < 0 ? [] : leading.slice(replaceCount);
  return [namespace, ...kept, elements.at(-1)].join("/");
}

/** Throws BAD_REQUEST for a name that the destination cannot have. */
export function checkDestinationName(name: string, limits: PathLimits): void {
  const elements = name.split("/");
  const count = elements.length;
  const { minPathElements: min, maxPathElements: max } = limits;
  const shown = `the destination repository ${JSON.stringify(name)}`;
  if (max !== null && count > max) {
    throw invalid(`${shown} contains ${count} path components [${elements.join(" ")}], but the destination registry only supports ${max}`);
  }
  if (count < min) {
    const demand = max === min ? `only supports ${min}` : `requires at least ${min}`;
    throw invalid(
      `${shown} contains ${min === max ? "" : "only "}${count} path components [${elements.join(" ")}], but the destination registry ${demand}`,
    );
  }
  if (!isRepositoryName(name)) throw invalid(`${shown} has a name that is not valid`);
}

/** Whether different sources can get one name: without it, nobody needs to look at all of them before the first is copied. */
export function canCollide(destinations: readonly NamedDestination[]): boolean {
  const registries = new Set(destinations.map(({ registryId }) => registryId));
  return (
    registries.size < destinations.length || destinations.some(({ namespace, replaceCount }) => namespace !== "" && replaceCount !== 0)
  );
}

function invalid(message: string): SlipwayError {
  return new SlipwayError("BAD_REQUEST", { message });
}
