import fp from 'fastify-plugin'
import fastJson, { type AnySchema } from 'fast-json-stringify'
import type { TSchema } from '@sinclair/typebox'
import type { FastifyRouteSchemaDef } from 'fastify/types/schema.js'
import type { FastifyInstance, FastifyRequest, FastifySchemaCompiler, FastifySerializerCompiler } from 'fastify'
import { validationFailed } from '../src/errors.js'
import { coerce } from '../src/lib/coerce.js'
import { fieldErrors } from '../src/protocol/validation.js'

/** Checks a part of a request by its TypeBox schema, after reading numbers in strings and trimming texts. */
export const validatorCompiler: FastifySchemaCompiler<TSchema> = function compileValidator ({ schema }) {
  return function validate (input: unknown) {
    const value = coerce(schema, input)
    const errors = fieldErrors(schema, value)
    return errors.length > 0 ? { error: validationFailed(errors) } : { value }
  }
}

/** The compiler of a route whose body `parse` makes something of; what it throws is answered. */
export function parseBody (parse: (body: unknown) => unknown) {
  return function compileParser (route: FastifyRouteSchemaDef<unknown>) {
    if (route.httpPart !== 'body') return validatorCompiler(route as FastifyRouteSchemaDef<TSchema>)
    return function parseOrRefuse (body: unknown) {
      try {
        return { value: parse(body) }
      } catch (error) {
        return { error: error as Error }
      }
    }
  }
}

const jsonTypes = ['application/json', 'application/merge-patch+json']

/** JSON bodies, where an empty one counts as none: existing clients send it with DELETE and logout. */
function addJsonParser (scope: FastifyInstance) {
  const parse = scope.getDefaultJsonParser('error', 'error')
  // Those of the host too: what it takes elsewhere is none of ours.
  scope.removeAllContentTypeParsers()
  scope.addContentTypeParser(jsonTypes, { parseAs: 'string' }, function parseJson (request: FastifyRequest, body: string, done) {
    if (body.trim() === '') done(null, undefined)
    else parse(request, body, done)
  })
}

type Serializer = (value: unknown) => string

/** Many routes answer with the same schema, and a host may have several registries: each is compiled once. */
const serializers = new WeakMap<object, Serializer>()

/** The form of every answer; a host's own compiler is made for schemas of another kind. */
const serializerCompiler: FastifySerializerCompiler<AnySchema & object> = function compileSerializer ({ schema }) {
  const serializer = serializers.get(schema) ?? fastJson(schema)
  serializers.set(schema, serializer)
  return serializer
}

export default fp(async function validation (scope: FastifyInstance) {
  addJsonParser(scope)
  scope.setSerializerCompiler(serializerCompiler)
  scope.setValidatorCompiler(validatorCompiler)
}, { name: 'agent-registry-validation' })
