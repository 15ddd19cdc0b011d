import neostandard, { plugins } from 'neostandard'

const typescript = plugins['typescript-eslint'].plugin

/** Files whose lines are all at most 140 characters long. Extend this list until it covers the repository. */
const shortLines = ['*.js', 'scripts/**/*.js', '{src,plugins,routes,bench,test}/**/*.ts']

export default [
  { ignores: ['dist', '.tap', 'node_modules'] },
  ...neostandard({ ts: true }),
  { rules: { 'max-lines': ['error', 500] } },
  { files: shortLines, rules: { '@stylistic/max-len': ['error', { code: 140, tabWidth: 2 }] } },
  {
    files: ['**/*.ts'],
    plugins: { '@typescript-eslint': typescript },
    // A schema and the type derived from it share a name.
    rules: { '@typescript-eslint/no-explicit-any': 'error', '@typescript-eslint/no-redeclare': 'off' }
  },
  {
    files: ['src/**/*.ts', 'plugins/**/*.ts', 'routes/**/*.ts'],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: { '@typescript-eslint/no-unnecessary-type-assertion': 'error' }
  }
]
