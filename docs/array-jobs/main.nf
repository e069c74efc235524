// nextflow run main.nf --image /shared/big.ome.zarr --parts 16 --options '--diameter 12um'
// The image is named by its path, not staged: results lie beside it, and parts meet there.
params.image = null
params.parts = 4
params.options = ''

process ANYSTAR_PART {
    tag "${part}/${parts}"
    errorStrategy 'ignore'  // a part that failed is made up for
    cpus 4
    memory '16 GB'

    input:
    tuple val(image), val(part), val(parts), val(options)

    output:
    tuple val(image), val(part), val(options)

    script:
    """
    anystar-batch segment '${image}' ${options} --quiet --part ${part}/${parts}
    """
}

process ANYSTAR_FINISH {
    tag "${image}"
    cpus 4
    memory '16 GB'

    input:
    tuple val(image), val(options), val(done)

    output:
    stdout

    script:
    """
    anystar-batch segment '${image}' ${options} --quiet --json
    """
}

workflow {
    parts = Channel.of(1..params.parts).map { n -> tuple(params.image, n, params.parts, params.options) }
    done = ANYSTAR_PART(parts).map { image, part, options -> part }.collect().ifEmpty([])
    ANYSTAR_FINISH(done.map { list -> tuple(params.image, params.options, list) }).view()
}
