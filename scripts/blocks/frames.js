// Compares frames in documents with the schemas that the registry validates frames with.
import { createRequire } from 'node:module'
import fastify from 'fastify'
import { typeDeclarations } from '../protocol-pages.js'

const ts = createRequire(import.meta.url)('typescript')

/** The messages by the value of their member `type`. */
function messagesByType (document) {
  const found = new Map()
  for (const { payload } of Object.values(document.components.messages)) {
    const type = payload.properties?.type?.const
    if (type !== undefined) found.set(type, [...(found.get(type) ?? []), payload])
  }
  return found
}

/** Members of a type literal or interface: name → whether it is optional, and the members below it. */
function membersOf (node) {
  return new Map(node.members.filter(ts.isPropertySignature).map(member => {
    const inner = member.type && ts.isTypeLiteralNode(member.type) ? membersOf(member.type) : undefined
    return [member.name.getText().replaceAll(/['"]/g, ''), { isOptional: member.questionToken !== undefined, inner }]
  }))
}

/** The differences between the members of a type and those of a schema; null if there are none. */
function difference (members, { properties, required = [] }, path = '') {
  for (const name of Object.keys(properties)) if (!members.has(name)) return `${path}${name} is missing`
  for (const [name, { isOptional, inner }] of members) {
    if (!(name in properties)) return `${path}${name} is not in the schema`
    if (isOptional === required.includes(name)) return `${path}${name} is ${isOptional ? 'required' : 'optional'} in the schema`
    const found = inner && properties[name].properties ? difference(inner, properties[name], `${path}${name}.`) : null
    if (found) return found
  }
  return null
}

function typeOf (node) {
  const member = node.members?.find(candidate => candidate.name?.getText() === 'type')
  return member?.type && ts.isLiteralTypeNode(member.type) && ts.isStringLiteral(member.type.literal) ? member.type.literal.text : undefined
}

/** Whether a TypeScript block contains only types. */
export function isDeclarations (code) {
  const { statements } = ts.createSourceFile('block.ts', code, ts.ScriptTarget.Latest, true)
  return statements.every(statement => ts.isInterfaceDeclaration(statement) || ts.isTypeAliasDeclaration(statement))
}

/** The types that the declarations of a page may use, except those that the page declares. */
function typesFor (declarations, code) {
  const { statements } = ts.createSourceFile('page.ts', code, ts.ScriptTarget.Latest, true)
  const own = new Set(statements.map(({ name }) => name.text))
  return Array.from(declarations).filter(([name]) => !own.has(name)).map(([, text]) => text).join('\n')
}

/** An app with a route for each type of frame, which validates its body as that frame. */
function createValidator ({ components }, types) {
  const app = fastify({ ajv: { customOptions: { strict: false, coerceTypes: false, removeAdditional: false } } })
  for (const [type, payloads] of types) {
    app.post(`/${type}`, { schema: { body: { anyOf: payloads, components } } }, async function accept () { return 'valid' })
  }
  return app
}

export function createFrameChecks (document) {
  const types = messagesByType(document)
  const validator = createValidator(document, types)
  return {
    /** Adds the types of members of frames to the declarations of a page, for the type check as one file. */
    withTypes: code => `${code}\n${typesFor(typeDeclarations(document), code)}\nexport {}\n`,
    /** Checks that each interface with the `type` of a frame has the members of one of the frames with that type. */
    checkDeclarations (code) {
      const { statements } = ts.createSourceFile('block.ts', code, ts.ScriptTarget.Latest, true)
      for (const statement of statements) {
        const type = typeOf(statement)
        if (type === undefined) continue
        if (!types.has(type)) throw new Error(`${statement.name.text}: no frame has the type '${type}'`)
        const differences = types.get(type).map(payload => difference(membersOf(statement), payload))
        if (!differences.includes(null)) throw new Error(`${statement.name.text}: ${differences.join('; or ')}`)
      }
    },
    /** Validates a value with the `type` of a frame against the schema of that frame. */
    async checkFrame (value) {
      if (!types.has(value?.type)) return
      const { statusCode, body } = await validator.inject({ method: 'POST', url: `/${value.type}`, payload: value })
      if (statusCode !== 200) throw new Error(`${JSON.stringify(value)}: ${body}`)
    }
  }
}
