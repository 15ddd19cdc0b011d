import type { TSchema } from '@sinclair/typebox'

type Example = (schema: TSchema) => unknown

/** Members that have to be there, and those that have an example of their own. */
function objectExample ({ properties = {}, required = [] }: TSchema): object {
  const members = Object.entries<TSchema>(properties).filter(([name, { examples }]) => (required as string[]).includes(name) || examples)
  return Object.fromEntries(members.map(([name, member]) => [name, exampleOf(member)]))
}

const byType: Readonly<Record<string, Example>> = {
  object: objectExample,
  array: ({ minItems = 0, items }) => Array.from({ length: minItems }, () => exampleOf(items)),
  string: () => '…',
  number: ({ minimum = 0 }) => minimum,
  integer: ({ minimum = 0 }) => minimum,
  boolean: () => true
}

/** A value that a schema allows, the shortest that says something: examples of the schema come first. */
export function exampleOf (schema: TSchema): unknown {
  if (schema.examples) return schema.examples[0]
  if ('const' in schema) return schema.const
  if (schema.anyOf) return exampleOf(schema.anyOf[0])
  return byType[schema.type]?.(schema) ?? null
}
