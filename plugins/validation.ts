import fp from 'fastify-plugin'
import fastJson, { type AnySchema } from 'fast-json-stringify'
import type { TSchema } from '@sinclair/typebox'
import type { FastifyRouteSchemaDef } from 'fastify/types/schema.js'
import type { FastifyInstance, FastifyRequest, FastifySchemaCompiler, FastifySerializerCompiler } from 'fastify'
import { validationFailed } from '../src/errors.js'
import { coerce } from '../src/lib/coerce.js'
import { fieldErrors } from '../src/protocol/validation.js'

/** Validates a part of a request by its TypeBox schema, after coercing strings to numbers and trimming texts. */
const validatorCompiler: FastifySchemaCompiler<TSchema> = function compileValidator ({ schema }) {
  return function validate (input: unknown) {
    const value = coerce(schema, input)
    const errors = fieldErrors(schema, value)
    return errors.length > 0 ? { error: validationFailed(errors) } : { value }
  }
}

/** Creates the validator compiler of a route whose body is the result of `parse`; an exception is the response. */
export function parseBody (parse: (body: unknown) => unknown) {
  return function compileParser (route: FastifyRouteSchemaDef<unknown>) {
    if (route.httpPart !== 'body') return validatorCompiler(route as FastifyRouteSchemaDef<TSchema>)
    return function parseOrRefuse (body: unknown) {
      try {
        return { value: parse(body) }
      } catch (error) {
        return { error: error instanceof Error ? error : new Error(String(error)) }
      }
    }
  }
}

const jsonTypes = ['application/json', 'application/merge-patch+json']

/** Parses JSON bodies. An empty body counts as no body, because ARCP clients send it with DELETE and logout. */
function addJsonParser (scope: FastifyInstance) {
  const parse = scope.getDefaultJsonParser('error', 'error')
  // Also removes the parsers of the host, whose content types the registry does not accept.
  scope.removeAllContentTypeParsers()
  scope.addContentTypeParser(jsonTypes, { parseAs: 'string' }, function parseJson (request: FastifyRequest, body: string, done) {
    if (body.trim() === '') done(null, undefined)
    else parse(request, body, done)
  })
}

type Serializer = (value: unknown) => string

/** Compiled serializers by schema: routes share schemas, and a host may have several registries. */
const serializers = new WeakMap<object, Serializer>()

/** Replaces the serializer compiler of the host, which may expect other schemas than TypeBox. */
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
