"""What a course plays for, in words, for proposers that read."""

from agentgolf.course import Course


def rules_text(course: Course) -> str:
    limits, decision = course.limits, course.spec.decision
    counted = "compressed with zstd" if limits.code_bytes == "zstd" else "as it stands"
    lines = [
        f"- The course {course.name}, track {course.track}: {course.spec.summary}",
        f"- Training gets {limits.train_seconds:g} seconds ({limits.clock} clock) on {limits.threads} thread(s)"
        + (f" and {limits.gpus} GPU(s)" if limits.gpus else "")
        + f"; encoding and prediction get {limits.eval_seconds:g} seconds each.",
        f"- Artifact and code together have at most {limits.artifact_cap_bytes:,} bytes; code counts {counted}.",
        f"- A change is kept when it gains more than {decision.min_gain_bpb:g} bits per byte beyond the noise.",
    ]
    if limits.parameter_cap is not None:
        lines.append(f"- The model has at most {limits.parameter_cap:,} parameters.")
    return "\n".join(lines)
