// As much of JSON Schema 2020-12 as protocol/schema uses. A keyword that is not known here fails, so none is overlooked.

import Foundation

/// All schemas of the protocol, by name.
struct Schemas {
    private let documents: [String: JSONValue]

    init() throws {
        var documents: [String: JSONValue] = [:]
        for file in try ProtocolFiles.list("schema", suffix: ".json") {
            documents[String(file.name.dropLast(5))] = try JSONValue(file.bytes)
        }
        self.documents = documents
    }

    /// Those of messages: all but what several have in common.
    var names: Set<String> { Set(documents.keys).subtracting(["common"]) }

    struct Unknown: Error, CustomStringConvertible {
        let description: String
    }

    /// Why a value does not fit the schema; nil when it does.
    func complaint(_ name: String, about value: JSONValue) throws -> String? {
        guard let document = documents[name] else { throw Unknown(description: "no schema \(name)") }
        return try complaint(document, value, in: name, at: "")
    }

    private func complaint(
        _ schema: JSONValue, _ value: JSONValue, in document: String, at path: String
    ) throws -> String? {
        if case .boolean(let isAllowed) = schema { return isAllowed ? nil : "\(path): not allowed" }
        guard let keywords = schema.members else { throw Unknown(description: "\(document): no schema at \(path)") }
        for (keyword, argument) in keywords {
            let isFine =
                switch keyword {
                case "$schema", "$id", "$defs", "title", "description": true
                case "$ref": try fits(try referred(argument, in: document), value, path)
                case "oneOf":
                    try (argument.elements ?? []).count { try fits(($0, document), value, path) } == 1
                case "anyOf": try (argument.elements ?? []).contains { try fits(($0, document), value, path) }
                case "allOf": try (argument.elements ?? []).allSatisfy { try fits(($0, document), value, path) }
                case "not": try !fits((argument, document), value, path)
                case "additionalProperties", "properties", "required":
                    try fitsObject(keyword, argument, keywords, value, document, path)
                case "items", "prefixItems", "contains", "minItems", "maxItems":
                    try fitsArray(keyword, argument, value, document, path)
                default: try fitsScalar(keyword, argument, value)
                }
            if !isFine { return "\(path) \(keyword)" }
        }
        return nil
    }

    private func fits(_ schema: (JSONValue, document: String), _ value: JSONValue, _ path: String) throws -> Bool {
        try complaint(schema.0, value, in: schema.document, at: path) == nil
    }

    private func fitsObject(
        _ keyword: String, _ argument: JSONValue, _ keywords: [String: JSONValue], _ value: JSONValue,
        _ document: String, _ path: String
    ) throws -> Bool {
        guard let members = value.members else { return true }
        let properties = keywords["properties"]?.members ?? [:]
        switch keyword {
        case "required": return (argument.elements ?? []).allSatisfy { $0.text.map { members[$0] != nil } ?? false }
        case "properties":
            return try properties.allSatisfy { name, schema in
                try members[name].map { try fits((schema, document), $0, "\(path)/\(name)") } ?? true
            }
        default:
            return try members.allSatisfy { name, member in
                try properties[name] != nil || fits((argument, document), member, "\(path)/\(name)")
            }
        }
    }

    private func fitsArray(
        _ keyword: String, _ argument: JSONValue, _ value: JSONValue, _ document: String, _ path: String
    ) throws -> Bool {
        guard let elements = value.elements else { return true }
        switch keyword {
        case "items": return try elements.allSatisfy { try fits((argument, document), $0, "\(path)/0") }
        case "contains": return try elements.contains { try fits((argument, document), $0, "\(path)/0") }
        case "prefixItems":
            return try zip(argument.elements ?? [], elements).allSatisfy { try fits(($0, document), $1, "\(path)/0") }
        case "minItems": return elements.count >= argument.integer ?? .max
        default: return elements.count <= argument.integer ?? 0
        }
    }

    private func fitsScalar(_ keyword: String, _ argument: JSONValue, _ value: JSONValue) throws -> Bool {
        switch keyword {
        case "type": return isOf(argument.text ?? "", value)
        case "const": return value == argument
        case "enum": return (argument.elements ?? []).contains(value)
        case "minimum": return value.double.map { $0 >= argument.double ?? .infinity } ?? true
        case "maximum": return value.double.map { $0 <= argument.double ?? -.infinity } ?? true
        case "exclusiveMinimum": return value.double.map { $0 > argument.double ?? .infinity } ?? true
        case "minLength": return value.text.map { $0.unicodeScalars.count >= argument.integer ?? .max } ?? true
        case "maxLength": return value.text.map { $0.unicodeScalars.count <= argument.integer ?? 0 } ?? true
        case "pattern":
            guard let text = value.text else { return true }
            let pattern = try NSRegularExpression(pattern: argument.text ?? "")
            return pattern.firstMatch(in: text, range: NSRange(text.startIndex..., in: text)) != nil
        default: throw Unknown(description: "the keyword \(keyword) is not known here")
        }
    }

    private func isOf(_ type: String, _ value: JSONValue) -> Bool {
        switch (type, value) {
        case ("null", .null), ("boolean", .boolean), ("number", .number), ("string", .string), ("array", .array),
            ("object", .object):
            true
        case ("integer", .number): value.double.map { $0 == $0.rounded() } ?? false
        default: false
        }
    }

    private func referred(_ reference: JSONValue, in document: String) throws -> (JSONValue, document: String) {
        let parts = (reference.text ?? "").split(separator: "#", omittingEmptySubsequences: false)
        guard parts.count == 2 else { throw Unknown(description: "the reference \(reference.json)") }
        let name = parts[0].isEmpty ? document : String(parts[0].dropLast(5))
        var place = documents[name]
        for step in parts[1].split(separator: "/") { place = place?[String(step)] }
        guard let place else { throw Unknown(description: "the reference \(reference.json) in \(document)") }
        return (place, name)
    }
}
