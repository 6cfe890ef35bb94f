/** What a policy selects: repositories by name, then artifacts one page after the other. All filters must agree. */
import type { Artifact } from "../adapters/adapter.ts";
import { compilePattern } from "./patterns.ts";
import type { Pattern } from "./patterns.ts";
import type { PolicyFilter } from "./policy.ts";
import { keepNewest } from "./newest.ts";

/** What has to be known of an artifact before it can be judged. */
export interface FilterNeeds {
  readonly times: boolean;
  readonly labels: boolean;
  readonly mediaTypes: boolean;
  readonly artifactTypes: boolean;
}

/** Goes over the artifacts of one repository, in whatever order they come. */
export interface ArtifactSelector {
  /** Those of the page that are selected for certain. */
  offer(artifacts: readonly Artifact[]): Artifact[];
  /** Those of which only the end of the list could tell. */
  finish(): Artifact[];
}

export interface CompiledFilters {
  /** The only repositories that can match; null: all have to be looked at. */
  readonly names: readonly string[] | null;
  /** The first path elements that can match; null: any. */
  readonly namespaces: readonly string[] | null;
  readonly needs: FilterNeeds;
  /** Of an index only these are wanted, as os/architecture or os/architecture/variant; null: all. */
  readonly platforms: readonly string[] | null;
  /** Every artifact of a repository that matches is selected. */
  readonly takesEverything: boolean;
  matchesRepository(name: string): boolean;
  selector(): ArtifactSelector;
}

/** Where signatures and the like stand beside what they belong to: the tag schema of the specification, and that of cosign. */
const ACCESSORY_TAG = /^(?:sha256|sha512)-[a-f0-9]{64,128}(?:\.(?:sig|att|sbom))?$/;

type Test = (artifact: Artifact) => boolean;

/** `now` is that of the run's start, so that a run that goes on tomorrow selects the same. Throws BAD_REQUEST for what is no pattern. */
export function compileFilters(filters: readonly PolicyFilter[], now: Date = new Date()): CompiledFilters {
  const byName = filters.filter(({ type, value }) => type === "name" && value !== "").map(compileName);
  const tests = filters.flatMap((filter) => testOf(filter, now));
  const newest = filters.filter(({ type }) => type === "newest");
  const has = (...types: readonly PolicyFilter["type"][]): boolean => filters.some(({ type }) => types.includes(type));
  const takesEverything = tests.length === 0 && newest.length === 0;
  const matchesRepository = (name: string): boolean => byName.every(({ pattern, wanted }) => pattern.matches(name) === wanted);
  const included = byName.filter(({ wanted }) => wanted).map(({ pattern }) => pattern);
  const isSelected: Test = (artifact) => tests.every((test) => test(artifact)) && !isAccessory(artifact);
  return {
    names: intersection(included.map(({ literals }) => literals))?.filter(matchesRepository) ?? null,
    namespaces: intersection(included.map(({ namespaces }) => namespaces)),
    needs: {
      times: has("max_age") || newest.some(({ kind }) => kind !== "semver"),
      labels: has("label"),
      mediaTypes: has("media_type"),
      artifactTypes: has("artifact_type"),
    },
    platforms: intersection(filters.filter(({ type }) => type === "platform").map(({ value }) => texts(value))),
    takesEverything,
    matchesRepository,
    selector: () => {
      if (takesEverything) return { offer: (artifacts) => [...artifacts], finish: () => [] };
      if (newest.length > 0) return keepNewest(newest, isSelected);
      return { offer: (artifacts) => artifacts.filter(isSelected), finish: () => [] };
    },
  };
}

/** Signatures and the like, which go with what they belong to: not their own tags decide, but those of their parent. */
function isAccessory({ tag, subject }: Artifact): boolean {
  return (subject !== undefined && subject !== null) || (tag !== null && ACCESSORY_TAG.test(tag));
}

function compileName(filter: PolicyFilter): { pattern: Pattern; wanted: boolean } {
  return { pattern: compilePattern(String(filter.value), filter.kind), wanted: filter.decoration !== "excludes" };
}

/** None for filters that judge no single artifact. */
function testOf(filter: PolicyFilter, now: Date): Test[] {
  const wanted = filter.decoration !== "excludes";
  switch (filter.type) {
    case "tag": {
      if (filter.value === "" || (takesAll(filter) && wanted)) return [];
      const pattern = compilePattern(String(filter.value), filter.kind);
      // Content without a tag counts as the empty tag.
      return [({ tag }) => pattern.matches(tag ?? "") === wanted];
    }
    case "label": {
      const labels = texts(filter.value);
      return labels.length === 0 ? [] : [(artifact) => labels.every((label) => artifact.labels?.includes(label) === true) === wanted];
    }
    case "media_type":
      return [testOfType(filter, ({ mediaType }) => mediaType)];
    case "artifact_type":
      return [testOfType(filter, ({ artifactType }) => artifactType)];
    case "max_age": {
      const oldest = now.getTime() - Number(filter.value) * 1000;
      return [({ pushedAt }) => pushedAt !== null && pushedAt.getTime() >= oldest];
    }
    // Kinds of resources are part of Harbor's policies, and decide nothing there either.
    case "resource":
    case "name":
    case "platform":
    case "newest":
      return [];
    default:
      return filter.type satisfies never;
  }
}

/** What forms fill in when nothing is to be left out. */
function takesAll({ value, kind }: PolicyFilter): boolean {
  return kind === "glob" && (value === "*" || value === "**");
}

function testOfType(filter: PolicyFilter, typeOf: (artifact: Artifact) => string | null): Test {
  const patterns = texts(filter.value).map((text) => compilePattern(text, filter.kind));
  const wanted = filter.decoration !== "excludes";
  return (artifact) => {
    const type = typeOf(artifact);
    return (type !== null && patterns.some((pattern) => pattern.matches(type))) === wanted;
  };
}

function texts(value: PolicyFilter["value"]): readonly string[] {
  return typeof value === "string" ? [value] : typeof value === "number" ? [] : value;
}

/** Of lists of which null takes everything. */
function intersection(lists: readonly (readonly string[] | null)[]): readonly string[] | null {
  return lists.reduce(
    (common, list) => (common === null || list === null ? (common ?? list) : common.filter((one) => list.includes(one))),
    null,
  );
}
